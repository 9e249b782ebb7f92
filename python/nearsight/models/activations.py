"""Activation functions of dense networks, by their names in the model file (docs/file_format.md)."""

from __future__ import annotations

import math
from collections.abc import Callable

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


def derivatives(activation: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first and the second derivative of y = activation(x), element by element."""
    return _DERIVATIVES[type(activation)](x, y)


def _of_logistic(y: Tensor) -> tuple[Tensor, Tensor]:
    slope = y * (1.0 - y)
    return slope, slope * (1.0 - 2.0 * y)


def _of_reversed_logistic(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    slope, curvature = _of_logistic(y)
    return -slope, curvature


def _of_tanh(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    slope = 1.0 - y * y
    return slope, -2.0 * y * slope


def _of_silu(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    value = torch.sigmoid(x)
    slope, curvature = _of_logistic(value)
    return value + x * slope, 2.0 * slope + x * curvature


def _of_celu(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    slope = torch.exp(10.0 * torch.clamp(x, max=0.0))
    return slope, torch.where(x < 0.0, 10.0 * slope, 0.0)


def _of_gelu(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    density = torch.exp(-0.5 * x**2) / math.sqrt(2.0 * math.pi)
    return torch.special.ndtr(x) + x * density, (2.0 - x**2) * density


_DERIVATIVES: dict[type[nn.Module], Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    nn.Identity: lambda x, y: (torch.ones_like(x), torch.zeros_like(x)),
    nn.Tanh: _of_tanh,
    nn.SiLU: _of_silu,
    nn.Sigmoid: lambda x, y: _of_logistic(y),
    ReversedLogistic: _of_reversed_logistic,
    Softplus: lambda x, y: (torch.sigmoid(x), _of_logistic(torch.sigmoid(x))[0]),
    nn.ReLU: lambda x, y: ((x > 0.0).to(x.dtype), torch.zeros_like(x)),
    Gaussian: lambda x, y: (-x * y, (x**2 - 1.0) * y),
    Cos: lambda x, y: (-torch.sin(x), -y),
    ExpNegative: lambda x, y: (-y, y),
    Square: lambda x, y: (2.0 * x, torch.full_like(x, 2.0)),
    CELU: _of_celu,
    nn.GELU: _of_gelu,
}
