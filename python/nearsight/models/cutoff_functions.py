"""Cutoff functions f(r/rc): 1 or nearly so at 0, exactly 0 at and beyond the cutoff.

The formulas are n2p2's. `polyN` and its first N derivatives vanish at the cutoff; `cos` is C1, `tanh3` is C2.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

CutoffFunction = Literal["cos", "tanh3", "poly1", "poly2", "poly3", "poly4"]


def cutoff_function(kind: str, distances: Tensor, cutoffs: Tensor) -> Tensor:
    """Return f(distances / cutoffs), of the broadcast shape of the two (both in Å)."""
    x = torch.clamp(distances / cutoffs, max=1.0)
    if kind == "cos":
        return 0.5 * (torch.cos(math.pi * x) + 1.0)
    if kind == "tanh3":
        return torch.tanh(1.0 - x) ** 3
    if kind == "poly1":
        return (2.0 * x - 3.0) * x**2 + 1.0
    if kind == "poly2":
        return ((15.0 - 6.0 * x) * x - 10.0) * x**3 + 1.0
    if kind == "poly3":
        return (((20.0 * x - 70.0) * x + 84.0) * x - 35.0) * x**4 + 1.0
    if kind == "poly4":
        return ((((315.0 - 70.0 * x) * x - 540.0) * x + 420.0) * x - 126.0) * x**5 + 1.0
    raise ValueError(f"unknown cutoff function '{kind}'")
