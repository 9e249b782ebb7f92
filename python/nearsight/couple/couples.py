"""The kinds of couple: scriptable modules from the readouts of a batch to the energy of every frame.

Reference energies are not included; the host adds them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nearsight.couple.coulomb import ChargeCouple, CoulombCouple
from nearsight.couple.equilibration import EquilibratedCouple
from nearsight.couple.sums import sum_frames
from nearsight.couple.system import System
from nearsight.errors import ConfigError
from nearsight.keys import READOUT_ENERGY, READOUT_HAMILTONIAN


class SumCouple(nn.Module):
    """The energy is the sum of the readout `energy`, [n] or a column for each member of a committee.

    A committee's energy is the mean of its members.
    """

    needs = (READOUT_ENERGY,)

    def __init__(self, members: int = 1):
        super().__init__()
        if members < 1:
            raise ConfigError(f"couple 'sum' needs at least one member, found {members}")
        self.members = members

    def forward(self, readouts: dict[str, Tensor], system: System) -> Tensor:
        """Return the energy [num_frames] in eV, in double."""
        energies = readouts["energy"].reshape(-1, self.members).to(torch.float64)
        return sum_frames(energies.mean(1), system.frame, system.num_frames)


class EigenstateCouple(nn.Module):
    """The energy is eigenvalue number `state`, in ascending order, of the summed readout `hamiltonian`."""

    needs = (READOUT_HAMILTONIAN,)

    def __init__(self, states: int, state: int):
        super().__init__()
        if not 0 <= state < states:
            raise ConfigError(f"couple 'eigenstate' has states 0 to {states - 1}, found state {state}")
        upper = torch.triu_indices(states, states)
        places = torch.zeros(states, states, dtype=torch.int64)
        places[upper[0], upper[1]] = torch.arange(upper.size(1))
        places[upper[1], upper[0]] = torch.arange(upper.size(1))
        self.register_buffer("places", places)
        self.state = state

    def forward(self, readouts: dict[str, Tensor], system: System) -> Tensor:
        """Return the energy [num_frames] in eV, in double."""
        sums = sum_frames(readouts["hamiltonian"], system.frame, system.num_frames)
        return eigenvalue(sums[:, self.places], self.state)


def eigenvalue(matrices: Tensor, state: int, smallest_gap: float = 1e-8) -> Tensor:
    """Return eigenvalue number `state` of symmetric matrices[F, S, S]; twice differentiable.

    With the eigenvectors held fixed, second-order perturbation theory around the present matrix is a
    polynomial in the matrix whose value and first two derivatives are those of the eigenvalue:
    E = M_kk + Σ_m (M_km - M_km⁰)² / (E_k - E_m), M = Vᵀ H V. The first derivative is u_k u_kᵀ
    (Hellmann-Feynman); no gap enters it, since the squared term is exactly 0 there, so that it is finite
    where states are degenerate.
    """
    with torch.no_grad():
        levels, vectors = torch.linalg.eigh(matrices)
        # The clone keeps TorchScript from sharing this constant with `present` as a common subexpression.
        constant = _row(matrices.clone(), vectors, state)
        gaps = levels[:, state : state + 1] - levels
        weights = gaps / (gaps**2 + smallest_gap**2)
    present = _row(matrices, vectors, state)
    return present[:, state] + ((present - constant) ** 2 * weights).sum(1)


def _row(matrices: Tensor, vectors: Tensor, state: int) -> Tensor:
    """Return row `state` of Vᵀ H V, [F, S]."""
    return ((matrices @ vectors[:, :, state : state + 1]) * vectors).sum(1)


def coulomb_couple(charges: str, **parameters: Any) -> ChargeCouple:
    """Return the couple of the kind of charges."""
    if charges == "equilibrated":
        return EquilibratedCouple(**parameters)
    return CoulombCouple(charges, **parameters)


KINDS = {"sum": SumCouple, "eigenstate": EigenstateCouple, "coulomb": coulomb_couple}


def build_couple(couple: dict[str, Any]) -> nn.Module:
    """Return the module for a `couple` record of docs/file_format.md; its `needs` names the readouts.

    Numbers of the species may be tensors, by which energies are then differentiable.

    Raises:
        ConfigError: the kind is unknown, or its parameters are not right.
    """
    parameters = {key: value for key, value in couple.items() if key != "kind"}
    kind = couple.get("kind")
    if kind not in KINDS:
        raise ConfigError(f"couple kind {kind!r} is unknown to this nearsight; it knows {', '.join(KINDS)}")
    try:
        return KINDS[kind](**parameters)
    except TypeError:
        raise ConfigError(
            f"couple {kind!r} was given the parameters {sorted(parameters)}, which do not fit it"
        ) from None
