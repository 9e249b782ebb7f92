"""Dense networks of one species on its features, all members of a committee side by side."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from nearsight.models.activations import ACTIVATIONS

_NOISE_FLOOR = 0.1  # variance of scaled functions below which a direction is not amplified
_ROUND_OFF = 1e-13  # of variances, relative to the largest one
_SMALLEST_SPREAD = 1e-3  # a function that hardly varies in the training set is not amplified more than this


@dataclass(frozen=True)
class NetworkShape:
    """Widths of the hidden layers, and the activation of each layer, the last one included."""

    hidden: tuple[int, ...]
    activation: tuple[str, ...]

    @classmethod
    def uniform(cls, hidden: list[int], activation: str) -> NetworkShape:
        """Return the same activation after every hidden layer and none after the last."""
        return cls(tuple(hidden), (activation,) * len(hidden) + ("linear",))

    def record(self) -> dict[str, list]:
        """Return the JSON object of the model file."""
        return {"hidden": list(self.hidden), "activation": list(self.activation)}


class MemberLinear(nn.Module):
    """One dense layer of every member: x [members, n, in] -> [members, n, out]."""

    def __init__(self, members: int, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(members, outputs, inputs, dtype=torch.float64))
        self.bias = nn.Parameter(torch.zeros(members, outputs, dtype=torch.float64))
        for weight in self.weight.unbind():
            nn.init.xavier_uniform_(weight)

    def forward(self, x: Tensor, mixing: Tensor | None) -> Tensor:
        """Return x M Wᵀ + b for each member, without M if `mixing` is None."""
        weight = self.weight
        if mixing is not None:  # of the few outputs rather than of the many rows
            weight = weight @ mixing.mT
        return torch.baddbmm(self.bias.unsqueeze(1), x, weight.transpose(1, 2))


class SpeciesNetwork(nn.Module):
    """The networks of one center species, on its columns of the descriptor's table.

    Args:
        columns: of the features.
        shape: of the networks.
        outputs: of each.
        members: of a committee.
        whiten: multiply the features by a matrix that `set_statistics` sets.
        directions: that the matrix keeps, at most; None: all, decorrelated.
    """

    def __init__(
        self,
        columns: Tensor,
        shape: NetworkShape,
        outputs: int,
        members: int = 1,
        whiten: bool = True,
        directions: int | None = None,
    ):
        super().__init__()
        features = columns.numel()
        inputs = features if directions is None else min(features, directions)
        self.members = members
        self.principal = directions is not None
        self.register_buffer("columns", columns)
        self.register_buffer("shift", torch.zeros(features, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(features, dtype=torch.float64))
        self.register_buffer("mixing", torch.eye(features, inputs, dtype=torch.float64) if whiten else None)
        # Ranges of the features in the training set; empty (min > max) where there was none.
        self.register_buffer("minimum", torch.full((features,), torch.inf, dtype=torch.float64))
        self.register_buffer("maximum", torch.full((features,), -torch.inf, dtype=torch.float64))
        widths = [inputs, *shape.hidden, outputs]
        self.layers = nn.ModuleList(MemberLinear(members, a, b) for a, b in pairwise(widths))
        self.activations = nn.ModuleList(ACTIVATIONS[name]() for name in shape.activation)

    def forward(self, features: Tensor) -> Tensor:
        """Map features [n, functions] to [n, members * outputs], without the output scale."""
        x = (features - self.shift) * self.scale
        y = x.unsqueeze(0).expand(self.members, -1, -1)
        for number, (layer, activation) in enumerate(zip(self.layers, self.activations)):
            y = activation(layer(y, self.mixing if number == 0 else None))
        return y.transpose(0, 1).flatten(1)

    def set_statistics(self, features: Tensor) -> None:
        """Take shift, scale, mixing and ranges from features [n, functions] of the training set.

        Features overlap, so they are strongly correlated, and a network on them trains slowly. The mixing
        (ZCA whitening, Kessy, Lewin and Strimmer, Am. Stat. 72, 309, 2018) undoes that; the floor leaves
        directions that hardly vary small.

        The scalar product of two SOAP vectors measures the similarity of neighborhoods. There the mixing is
        a projection on the principal directions, which keeps it: what varies little stays small, so that the
        network is smooth, as a Gaussian process with this kernel is.
        """
        self.shift.copy_(features.mean(0))
        self.minimum.copy_(features.amin(0))
        self.maximum.copy_(features.amax(0))
        centered = features - self.shift
        if self.principal:
            spread = torch.sqrt((centered**2).sum() / len(features) / self.mixing.size(1))
            self.scale.fill_(1.0 / spread.clamp(min=_SMALLEST_SPREAD))
            self.mixing.copy_(_principal_directions(centered, self.mixing.size(1)))
            return
        covariance = centered.mT @ centered / len(features)
        spread = torch.sqrt(covariance.diagonal()).clamp(min=_SMALLEST_SPREAD)
        self.scale.copy_(1.0 / spread)
        if self.mixing is not None:
            variance, directions = torch.linalg.eigh(covariance / spread / spread.unsqueeze(1))
            self.mixing.copy_(directions / torch.sqrt(variance.clamp(min=0.0) + _NOISE_FLOOR) @ directions.T)

    @torch.jit.unused
    def on_inputs(self) -> SpeciesNetwork:
        """Return the same networks, with these layers, as functions of x M, for x the scaled features."""
        inputs = self.layers[0].weight.size(2)
        alike = copy.copy(self)
        alike._buffers = {
            **self._buffers,
            "columns": torch.arange(inputs),
            "shift": torch.zeros(inputs, dtype=torch.float64),
            "scale": torch.ones(inputs, dtype=torch.float64),
            "mixing": None,
        }
        return alike

    @torch.jit.unused
    def weights(self) -> dict[str, Tensor]:
        """Return the tensors by their names in the file; the first layer takes in the mixing."""
        tensors = {"shift": self.shift, "scale": self.scale}
        if bool((self.minimum <= self.maximum).all()):
            tensors |= {"min": self.minimum, "max": self.maximum}
        for i, layer in enumerate(self.layers):
            mixed = i == 0 and self.mixing is not None
            tensors[f"{i}.weight"] = (
                layer.weight.double() @ self.mixing.double().mT if mixed else layer.weight
            )
            tensors[f"{i}.bias"] = layer.bias
        return tensors


def _principal_directions(rows: Tensor, count: int) -> Tensor:
    """Return the leading right singular vectors of rows [n, columns], [columns, count]; zero where the rows
    do not reach, since a network learns nothing about these directions."""
    if len(rows) < rows.size(1):
        _, singular, transposed = torch.linalg.svd(rows, full_matrices=False)
        squares, directions = singular**2, transposed.mT
    else:
        squares, directions = (part.flip(-1) for part in torch.linalg.eigh(rows.mT @ rows))
    leading = (directions * (squares > _ROUND_OFF * squares[0]))[:, :count]
    return nn.functional.pad(leading, (0, count - leading.size(1)))
