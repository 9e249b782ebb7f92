"""PaiNN: message passing with scalars and vectors (Schütt, Unke and Gastegger, ICML 2021, arXiv:2102.03150).

Each atom has scalars s [F] and vectors v [3, F]. A layer is a message and an update (⊙: for each feature):

    φ = W₂ silu(W₁ s_j),  f = (W basis(r_ij)) envelope(r_ij),  three parts each
    s_i += Σ_j φ_s ⊙ f_s,  v_i += Σ_j (φ_v ⊙ f_v ⊙ v_j + φ_r ⊙ f_r r̂_ij)
    a = W₄ silu(W₃ (s_i, |V v_i|)),  s_i += a_ss + a_sv ⊙ (U v_i · V v_i),  v_i += a_vv ⊙ U v_i

Here the filters end with the polynomial envelope, which has two derivatives at the cutoff, instead of the
paper's cosine, and the norm is √(|V v|² + ε), which is smooth at 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from nearsight.models.edge_functions import RadialBasis
from nearsight.models.energy_model import EnergyModel
from nearsight.models.mace_config import RadialConfig

_SMALLEST_NORM = 1e-8  # ε


class PaiNNConfig(BaseModel):
    """Configuration of a PaiNN model; cutoff in Å."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    architecture: Literal["painn"] = "painn"
    cutoff: float = Field(5.0, gt=0.0)
    channels: int = Field(64, ge=1)
    num_interactions: int = Field(3, ge=1)
    num_basis: int = Field(20, ge=1)
    envelope_order: int = Field(5, ge=3)

    def build(self, species: list[str], readouts: Mapping[str, int] | None = None) -> PaiNN:
        """Return an untrained model, its weights drawn from torch's global random numbers; `readouts` as of
        `PaiNN`."""
        return PaiNN(self, species, readouts)


class PaiNN(EnergyModel):
    """A PaiNN model; keeps docs/model_contract.md. Runs in all hosts through the torchscript backend.

    Args:
        config: sizes.
        species: chemical symbols; their order numbers the species.
        readouts: columns of readouts beside the energy, by name.
    """

    architecture = "painn"

    def __init__(self, config: PaiNNConfig, species: list[str], readouts: Mapping[str, int] | None = None):
        super().__init__(species, config.cutoff, config.num_interactions, readouts)
        channels, count = config.channels, config.num_basis
        radial = RadialConfig(count=count, envelope_order=config.envelope_order)
        record = radial.record(config.cutoff, species)
        self.hyperparameters = {
            "channels": channels,
            "basis": record["basis"],
            "envelope_order": config.envelope_order,
        }
        self.basis = RadialBasis(record, radial.tables(config.cutoff), config.cutoff, len(species))
        self.embedding = nn.Parameter(torch.randn(len(species), channels, dtype=torch.float64))
        self.messages = nn.ModuleList(Message(channels, count) for _ in range(config.num_interactions))
        self.updates = nn.ModuleList(Update(channels) for _ in range(config.num_interactions))
        self.readout = _network(channels, max(channels // 2, 1), sum(self.widths))

    def forward(
        self, species: Tensor, edge_index: Tensor, edge_vectors: Tensor, num_owned: int
    ) -> dict[str, Tensor]:
        """Return the readout `energy` [num_owned] in eV, and others [num_owned, columns]."""
        distances = torch.sqrt((edge_vectors**2).sum(1))
        directions = (edge_vectors / distances.unsqueeze(1)).unsqueeze(2)
        basis, envelope = self.basis(distances, species, edge_index)
        s = self.embedding[species]
        v = torch.zeros(s.size(0), 3, s.size(1), dtype=s.dtype, device=s.device)
        for message, update in zip(self.messages, self.updates):
            s, v = message(s, v, edge_index, directions, basis, envelope)
            s, v = update(s, v)
        return self.readouts_of(self.readout(s[:num_owned]), species[:num_owned])


class Message(nn.Module):
    """What an atom hears of its neighbors."""

    def __init__(self, channels: int, num_basis: int):
        super().__init__()
        self.context = _network(channels, channels, 3 * channels)
        self.filter = _linear(num_basis, 3 * channels)

    def forward(
        self, s: Tensor, v: Tensor, edge_index: Tensor, directions: Tensor, basis: Tensor, envelope: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return new s [M, F] and v [M, 3, F]; directions [E, 3, 1]."""
        center, neighbor = edge_index[0], edge_index[1]
        filtered = self.context(s).index_select(0, neighbor) * (self.filter(basis) * envelope)
        scalars, along, radial = _parts(filtered, 3)
        vectors = along.unsqueeze(1) * v.index_select(0, neighbor) + radial.unsqueeze(1) * directions
        return s.index_add(0, center, scalars), v.index_add(0, center, vectors)


class Update(nn.Module):
    """What an atom makes of it."""

    def __init__(self, channels: int):
        super().__init__()
        self.mix = _linear(channels, 2 * channels, bias=False)
        self.gates = _network(2 * channels, channels, 3 * channels)
        self.smallest = _SMALLEST_NORM

    def forward(self, s: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return new s [M, F] and v [M, 3, F]."""
        first, second = _parts(self.mix(v), 2)
        norm = torch.sqrt((second**2).sum(1) + self.smallest)
        scalars, product, vectors = _parts(self.gates(torch.cat([s, norm], dim=1)), 3)
        return s + scalars + product * (first * second).sum(1), v + vectors.unsqueeze(1) * first


def _parts(x: Tensor, count: int) -> list[Tensor]:
    """Return equal parts of the last dimension; torch.chunk fails in scripted gradients."""
    size = x.size(-1) // count
    return [x[..., k * size : (k + 1) * size] for k in range(count)]


def _linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, bias=bias, dtype=torch.float64)
    nn.init.xavier_uniform_(layer.weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def _network(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(_linear(inputs, hidden), nn.SiLU(), _linear(hidden, outputs))
