"""Activation functions of dense networks, by their names in the model file (docs/file_format.md)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ReversedLogistic(nn.Module):
    """1 - 1 / (1 + exp(-x))."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the function of every element."""
        return torch.sigmoid(-x)


class Softplus(nn.Module):
    """ln(1 + exp(x)), exact in double: torch's default turns into x where that is still 2e-9 off."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the function of every element."""
        return nn.functional.softplus(x, 1.0, 40.0)


class Gaussian(nn.Module):
    """exp(-x² / 2)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the function of every element."""
        return torch.exp(-0.5 * x**2)


class Cos(nn.Module):
    """cos(x)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the function of every element."""
        return torch.cos(x)


class ExpNegative(nn.Module):
    """exp(-x)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the function of every element."""
        return torch.exp(-x)


class Square(nn.Module):
    """x²."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the function of every element."""
        return x**2


class CELU(nn.Module):
    """x above 0, α (exp(x/α) - 1) below, with α = 0.1 as in ANI.

    torch's own rounds α to single precision in its derivative.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the function of every element."""
        return torch.relu(x) + 0.1 * torch.expm1(10.0 * torch.clamp(x, max=0.0))


ACTIVATIONS: dict[str, type[nn.Module]] = {
    "linear": nn.Identity,
    "tanh": nn.Tanh,
    "silu": nn.SiLU,
    "logistic": nn.Sigmoid,
    "reversed_logistic": ReversedLogistic,
    "softplus": Softplus,
    "relu": nn.ReLU,
    "gaussian": Gaussian,
    "cos": Cos,
    "exp_negative": ExpNegative,
    "square": Square,
    "celu": CELU,
    "gelu": nn.GELU,
}
