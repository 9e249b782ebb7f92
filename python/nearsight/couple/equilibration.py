"""Couple `coulomb` with equilibrated charges: those of least energy at a given total charge, or at given
charges of molecules.

    E(q) = Σ e_i + Σ χ_i q_i + ½ Σ (J_i + k/(√π σ_i)) q_i² + E_el(q) - Σ q_i r_i·F,    Σ q_i = Q

with the electronegativities χ of the model, hardness J and width σ of the species, and the energy E_el of
Gaussian charges by `Electrostatics`; k is Coulomb's constant. Ko, Finkler, Goedecker and Behler, Nat. Commun.
12, 398 (2021).

*Derivatives.* Let q° be the charges of least energy as mere numbers, g = dE/dq at q° as a function of
parameters and positions, and S = A⁻¹ - A⁻¹1 1ᵀA⁻¹ / 1ᵀA⁻¹1 with A = d²E/dq², held fixed; with molecules a
column of 1 for each of them. One step of Newton's method,

    q = q° - S g,    E = E(q°) - ½ gᵀ S g,

changes no value, since g = λ 1 and S 1 = 0, but has the derivatives of the minimum: the first ones of q, and
the first two of E. So nothing is differentiated that solves for the charges.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from nearsight.couple.coulomb import ChargeCouple, species_numbers
from nearsight.couple.coulomb_matrix import coulomb_matrix
from nearsight.couple.electrostatics import lattice_energies, pair_potentials
from nearsight.couple.least_charges import NO_MINIMUM, constrained, dense_minimum, gradient_minimum, shift_to
from nearsight.couple.sums import sum_frames
from nearsight.couple.system import Charged, System
from nearsight.errors import ConfigError, EvaluationError
from nearsight.keys import READOUT_ELECTRONEGATIVITY, READOUT_ENERGY
from nearsight.units import COULOMB

MAX_DENSE = 512  # atoms of a frame whose matrix is made
_MAX_BATCH = 2048  # atoms of all such frames together


class EquilibratedCouple(ChargeCouple):
    """See the module.

    Args:
        rtol, channels: as in docs/file_format.md; one channel.
        hardness: J of the species, eV/e².
        widths: σ of the species, Å, above 0.
        residual: of the iterations of hosts; here charges are exact to about 1e-12.
    """

    def __init__(
        self,
        rtol: float,
        hardness: Sequence[float] | Tensor,
        widths: Sequence[float] | Tensor,
        residual: float,
        channels: int = 1,
    ):
        super().__init__(rtol, channels, False, widths)
        self.register_buffer("hardness", species_numbers(hardness))
        if channels != 1 or self.hardness.shape != self.widths.shape or not bool((self.widths > 0).all()):
            raise ConfigError(
                "couple 'coulomb' of equilibrated charges has one channel, and hardness and widths above 0 "
                f"of all species, found {channels} channel(s), hardness {hardness} and widths {widths}"
            )
        self.needs = (READOUT_ENERGY, READOUT_ELECTRONEGATIVITY)
        self.coulomb, self.no_minimum = COULOMB, NO_MINIMUM  # TorchScript knows attributes, not constants

    def own(self, species: Tensor) -> Tensor:
        """Return J + k/(√π σ) of atoms species[n], eV/e²."""
        return (self.hardness + self.coulomb / (math.sqrt(math.pi) * self.widths)).index_select(0, species)

    def energies(self, charges: Tensor, readouts: dict[str, Tensor], system: System) -> Tensor:
        """Return the energies [F] in eV with any charges [n, 1]."""
        charged = system.charged
        assert charged is not None
        q, chi = charges.squeeze(1), readouts["electronegativity"].reshape(-1).to(torch.float64)
        local = readouts["energy"].reshape(-1) + (chi + 0.5 * self.own(charged.species) * q) * q
        return sum_frames(local, system.frame, system.num_frames) + self.electrostatic(charges, system)

    def slopes(self, readouts: dict[str, Tensor], charged: Charged) -> Tensor:
        """Return dE/dq of charges that are 0, [n] V: electronegativities, and the potential of the field."""
        slopes = readouts["electronegativity"].reshape(-1).to(torch.float64)
        field = charged.field
        if field is not None:
            slopes = slopes - charged.positions @ field
        return slopes

    def forward(self, readouts: dict[str, Tensor], system: System) -> Tensor:
        """Return the energy [F] in eV, in double, differentiable once; for at most `MAX_DENSE` atoms."""
        charged = system.charged
        assert charged is not None
        with torch.no_grad():
            matrix, factor = self.matrix(charged)
            slopes = self.slopes(readouts, charged)
            charges = dense_minimum(matrix, factor, -slopes, charged.total_charge, charged.molecule)
        return self.energies(charges.unsqueeze(1), readouts, system)

    def matrix(self, charged: Charged) -> tuple[Tensor, Tensor]:
        """Return d²E/dq² in eV/e², and Cholesky's factor of its `constrained` form, [n, n]."""
        frames, widths = charged.frames, self.widths.index_select(0, charged.species)
        matrix = self.coulomb * coulomb_matrix(charged.positions, frames.boxes, frames, widths)
        matrix = matrix + torch.diag(self.own(charged.species))
        fixed_sums = constrained(matrix, charged.molecule, charged.total_charge.size(0))
        factor, failed = torch.linalg.cholesky_ex(fixed_sums)
        if int(failed) > 0:
            raise ValueError(self.no_minimum)
        return matrix, factor

    @torch.jit.unused
    def rough_charges(
        self, readouts: dict[str, Tensor], molecule: Tensor, species: Tensor, total_charge: Tensor
    ) -> Tensor:
        """See `ChargeCouple`; those of atoms that do not see each other."""
        own = self.own(species)
        chi = readouts["electronegativity"].reshape(-1).to(torch.float64)
        return shift_to(-chi / own, 1 / own, total_charge, molecule).unsqueeze(1)

    @torch.jit.unused
    def energies_and_charges(
        self, readouts: dict[str, Tensor], system: System, twice: bool
    ) -> tuple[Tensor, Tensor]:
        """See `ChargeCouple`.

        Raises:
            EvaluationError: the energy has no minimum.
        """
        charged = system.charged
        with torch.no_grad():
            minimum = self._solver(charged)
            found = minimum(-self.slopes(readouts, charged), charged.total_charge)
        charges = found.unsqueeze(1).requires_grad_(twice)
        energies = self.energies(charges, readouts, system)
        if not twice:
            return energies, charges
        (slopes,) = torch.autograd.grad(energies.sum(), charges, create_graph=True)
        response = _Response.apply(slopes.squeeze(1), minimum, torch.zeros_like(charged.total_charge))
        energies = energies - 0.5 * sum_frames(slopes.squeeze(1) * response, system.frame, system.num_frames)
        return energies, charges.detach() - response.unsqueeze(1)

    @torch.jit.unused
    def _solver(self, charged: Charged) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the function of b[n] and total[M] that gives the charges of least ½ qᵀ A q - bᵀ q."""
        frame, molecule = charged.frames.frame, charged.molecule
        if len(frame) <= _MAX_BATCH and int(torch.bincount(frame).max()) <= MAX_DENSE:
            try:
                matrix, factor = self.matrix(charged)
            except ValueError as error:
                raise EvaluationError(str(error)) from None
            return lambda b, total: dense_minimum(matrix, factor, b, total, molecule)
        product, own = self._product(charged), self.own(charged.species)
        return lambda b, total: gradient_minimum(product, own, b, total, molecule, frame)

    @torch.jit.unused
    def _product(self, charged: Charged) -> Callable[[Tensor], Tensor]:
        """Return the function that multiplies charges [n] with d²E/dq²."""
        frames, positions, boxes = charged.frames, charged.positions.detach(), charged.frames.boxes.detach()
        own, widths = self.own(charged.species), self.widths.index_select(0, charged.species)
        potentials = self.coulomb * pair_potentials(positions, boxes, frames, widths)
        first, second = frames.pairs[0], frames.image_atoms[frames.pairs[1]]
        is_periodic = bool((frames.order > 0).any())

        def product(q: Tensor) -> Tensor:
            found = own * q
            found = found.index_add(0, first, potentials * q.index_select(0, second))
            found = found.index_add(0, second, potentials * q.index_select(0, first))
            if not is_periodic:
                return found
            with torch.enable_grad():
                charges = q.detach().unsqueeze(1).requires_grad_(True)
                energy = lattice_energies(positions, charges, boxes, frames, widths).sum()
                (slopes,) = torch.autograd.grad(energy, charges)
            return found + self.coulomb * slopes.squeeze(1)

        return product


class _Response(torch.autograd.Function):
    """S b of `minimum`, the charges of least energy for b that add up to total, zeros. S is symmetric."""

    @staticmethod
    def forward(ctx: Any, b: Tensor, minimum: Callable[[Tensor, Tensor], Tensor], total: Tensor) -> Tensor:
        ctx.minimum, ctx.total = minimum, total
        return minimum(b, total)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None, None]:
        return _Response.apply(cotangent, ctx.minimum, ctx.total), None, None
