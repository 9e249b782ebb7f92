"""Linear models: the energy of an atom is a sum of features with coefficients of its species, fitted exactly.

The coefficients c minimize  |X c - y|² + r Σ_k (γ_k c_k)²  over weighted rows (X, y) of energies, forces and
virials. This is Bayesian linear regression with Gaussian noise and a Gaussian prior of width 1 / γ_k; the
ratio r of the variances of noise and prior is where the evidence, the probability of the data, is largest
(MacKay, Neural Comput. 4, 415, 1992). γ_k grows exponentially with the degree of a feature, so that smooth
functions are preferred (Witt et al., J. Chem. Phys. 159, 164101, 2023).

Rows come in blocks and only the triangle of their QR decomposition is kept, so that memory does not grow with
the data and the condition of the normal equations, which is squared, never enters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from nearsight.models.ace import ACEConfig
from nearsight.models.bpnn import BPNN
from nearsight.models.descriptors import DescriptorConfig, default_tag
from nearsight.models.networks import NetworkShape
from nearsight.models.soap import SOAPConfig


class LinearConfig(BaseModel):
    """Configuration of a linear model; cutoff in Å."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    architecture: Literal["linear"]
    cutoff: float = Field(5.5, gt=0.0)
    descriptor: DescriptorConfig = ACEConfig()

    _default_kind = model_validator(mode="before")(default_tag("descriptor", "kind", "ace"))

    @model_validator(mode="after")
    def _consistent(self) -> LinearConfig:
        self.descriptor.check(self.cutoff)
        if isinstance(self.descriptor, SOAPConfig) and self.descriptor.species_channels:
            raise ValueError("species_channels have trained weights, a linear model has none: leave them out")
        return self

    def build(self, species: list[str]) -> BPNN:
        """Return a model whose coefficients are not fitted yet: networks without a hidden layer.

        Raises:
            ValueError: the descriptor does not fit the species.
        """
        descriptor = self.descriptor.build(self.cutoff, species)
        shape = NetworkShape((), ("linear",))
        networks = dict.fromkeys(species, shape)
        return BPNN(species, self.cutoff, descriptor, networks, whiten=False, architecture="linear")


class Triangle:
    """The triangular factor of the QR decomposition of rows (X, y) that come in blocks."""

    def __init__(self, columns: int):
        self.factor = torch.zeros(0, columns + 1, dtype=torch.float64)
        self.num_rows = 0

    def add(self, rows: Tensor, num_rows: int | None = None) -> None:
        """Take in rows [n, columns + 1], y last, that stand for `num_rows` ones (n, if not given)."""
        stacked = torch.cat([self.factor, rows])
        if stacked.size(0) > stacked.size(1):
            stacked = torch.linalg.qr(stacked, mode="r").R
        self.factor = stacked
        self.num_rows += rows.size(0) if num_rows is None else num_rows


@dataclass(frozen=True)
class Fit:
    """Coefficients and what the evidence says about them.

    Attributes:
        coefficients: [columns].
        square_error: |X c - y|².
        ridge: r / number of rows.
        effective: number of coefficients that the data determine rather than the prior.
    """

    coefficients: Tensor
    square_error: float
    ridge: float
    effective: float


def bayesian_ridge(triangle: Triangle, degrees: Tensor, smoothness: float, ridge: float | None = None) -> Fit:
    """Return the coefficients for γ_k = rms of column k times exp(smoothness * degrees[k]).

    Args:
        triangle: of the rows.
        degrees: [columns].
        smoothness: growth of the penalty with the degree.
        ridge: r / number of rows; None: that of the largest evidence.
    """
    columns = degrees.numel()
    rows = triangle.num_rows
    x, y = triangle.factor[:, :columns], triangle.factor[:, columns]
    rms = torch.sqrt((x**2).sum(0) / rows)
    gamma = torch.where(rms > 0, rms, torch.ones_like(rms)) * torch.exp(smoothness * degrees)
    u, s, v = torch.linalg.svd(x / gamma, full_matrices=False)
    projected = u.T @ y
    outside = float(y @ y - projected @ projected)
    r = _largest_evidence(s**2, projected**2, max(outside, 0.0), rows) if ridge is None else ridge * rows
    filtered = s / (s**2 + r)
    coefficients = (v.T @ (filtered * projected)) / gamma
    error = x @ coefficients - y
    return Fit(coefficients, float(error @ error), r / rows, float((s * filtered).sum()))


def _largest_evidence(variances: Tensor, squares: Tensor, outside: float, rows: int) -> float:
    """Return the r of the largest evidence, from s², (u·y)² and the part of |y|² outside of the columns.

    It minimizes -2 log p(y) = n log Q + Σ log(1 + s²/r) with Q = outside + Σ (u·y)² r / (s² + r), where the
    width of the noise is eliminated: on a grid of log r, then on finer ones around the best point.
    """
    largest = float(variances.max())
    low, high = -32.0, 2.0
    for _ in range(3):
        exponents = torch.linspace(low, high, 200, dtype=torch.float64)
        r = (largest * 10.0**exponents).unsqueeze(1)
        misfit = outside + (squares * r / (variances + r)).sum(1)
        values = rows * torch.log(misfit) + torch.log1p(variances / r).sum(1)
        best, step = float(exponents[int(values.argmin())]), (high - low) / 199
        low, high = best - step, best + step
    return largest * 10.0**best
