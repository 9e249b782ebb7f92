"""Sums over the atoms of each frame of a batch."""

from __future__ import annotations

import torch
from torch import Tensor


def sum_frames(values: Tensor, frame: Tensor, num_frames: int) -> Tensor:
    """Sum values[n, ...] over the atoms of each frame, in double."""
    values = values.to(torch.float64)
    sums = torch.zeros([num_frames] + list(values.shape[1:]), dtype=torch.float64, device=values.device)  # noqa: RUF005
    return sums.index_add(0, frame, values)
