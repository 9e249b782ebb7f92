"""Charges that add up to the total charge of their frame, or of each of its molecules."""

from __future__ import annotations

import torch
from torch import Tensor

from nearsight.couple.sums import sum_frames


def project_charges(charges: Tensor, total: Tensor, frame: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return q_i + w_i (Q - Σq) / Σw of every frame and channel, [n, C] e in double; scriptable.

    The sums of the first channel become total[F] e, those of the others 0. charges[n, C]; weights[n] or
    [n, C], positive; None: all equal. frame[n] is the number of the frame, or of the molecule, of each atom.
    """
    charges = charges.to(torch.float64)
    n, channels, num_frames = charges.size(0), charges.size(1), total.size(0)
    if weights is None:
        shares = torch.ones(n, 1, dtype=torch.float64, device=charges.device)
    else:
        shares = weights.to(torch.float64).reshape(n, -1)
    aim = torch.nn.functional.pad(total.to(torch.float64).unsqueeze(1), (0, channels - 1))
    missing = aim - sum_frames(charges, frame, num_frames)
    return charges + shares * (missing / sum_frames(shares, frame, num_frames)).index_select(0, frame)
