"""Cutoff functions f(r) and functions with compact support, from one set of core functions.

The formulas are n2p2's (Singraber et al., J. Chem. Theory Comput. 15, 1827, 2019; Bircher et al., Mach.
Learn.: Sci. Technol. 2, 035026, 2021). A core function falls from 1 at 0 to 0 at 1; `polyN` and its first N
derivatives vanish there, of `exp` all do. `cos` is C1, `tanh3` is C2, `hard` is not continuous.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

CoreFunction = Literal["poly1", "poly2", "poly3", "poly4", "exp"]
CutoffFunction = Literal[
    "hard", "cos", "tanh3", "tanh3_normalized", "exp", "poly1", "poly2", "poly3", "poly4"
]


def core_function(kind: str, x: Tensor) -> Tensor:
    """Return the core function of x, which is in [0, 1]."""
    if kind == "poly1":
        return (2.0 * x - 3.0) * x**2 + 1.0
    if kind == "poly2":
        return ((15.0 - 6.0 * x) * x - 10.0) * x**3 + 1.0
    if kind == "poly3":
        return (((20.0 * x - 70.0) * x + 84.0) * x - 35.0) * x**4 + 1.0
    if kind == "poly4":
        return ((((315.0 - 70.0 * x) * x - 540.0) * x + 420.0) * x - 126.0) * x**5 + 1.0
    if kind == "exp":
        inside = x < 1.0  # at 1 the derivatives of the formula are 0 times infinity
        return inside * torch.exp(1.0 - 1.0 / (1.0 - torch.where(inside, x, torch.zeros_like(x)) ** 2))
    raise ValueError(f"unknown cutoff function '{kind}'")


def cutoff_function(kind: str, inner: float, distances: Tensor, cutoffs: Tensor) -> Tensor:
    """Return f(distances), of the broadcast shape of distances and cutoffs (both in Å).

    Below `inner` times the cutoff f is 1, and falls to 0 from there on; the tanh functions ignore it.
    """
    if kind == "hard":
        return (distances < cutoffs).to(distances.dtype)
    if kind == "tanh3" or kind == "tanh3_normalized":
        start = math.tanh(1.0) if kind == "tanh3_normalized" else 1.0
        return (torch.tanh(torch.clamp(1.0 - distances / cutoffs, min=0.0)) / start) ** 3
    x = torch.clamp((distances / cutoffs - inner) / (1.0 - inner), min=0.0, max=1.0)
    if kind == "cos":
        return 0.5 * (torch.cos(math.pi * x) + 1.0)
    return core_function(kind, x)


def compact_function(kind: str, x: Tensor, left: Tensor, right: Tensor, asymmetric: Tensor) -> Tensor:
    """Return 1 in the middle of [left, right], 0 at its ends and outside; all arguments broadcast.

    `asymmetric` (0 or 1) bends the argument: t (2 - t) in place of the distance t from the middle.
    """
    t = torch.clamp(torch.abs(2.0 * x - (left + right)) / (right - left), max=1.0)
    return core_function(kind, t + asymmetric * t * (1.0 - t))
