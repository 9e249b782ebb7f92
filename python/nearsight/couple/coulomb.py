"""Couple `coulomb`: local energies, and the electrostatics of charges that the model gives its atoms."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nearsight.couple.electrostatics import Electrostatics
from nearsight.couple.projection import project_charges
from nearsight.couple.sums import sum_frames
from nearsight.couple.system import System
from nearsight.errors import ConfigError
from nearsight.keys import READOUT_CHARGE, READOUT_CHARGE_WEIGHT, READOUT_ENERGY

PHYSICAL = ("fixed", "environment", "equilibrated")  # meant to be charges of atoms, which data may have
CHARGES = ("fixed", "environment", "latent")  # of `CoulombCouple`, with Born effective charges


class ChargeCouple(nn.Module):
    """What couples with charges have in common.

    Attributes:
        rtol: relative error of the electrostatic forces.
        channels: independent charges of each atom.
        fixed: charges are numbers of the species.
        widths: [species] Å of Gaussians, or none: points.
    """

    def __init__(self, rtol: float, channels: int, fixed: bool, widths: Sequence[float] | Tensor | None):
        super().__init__()
        self.rtol, self.channels, self.fixed, self.smeared = rtol, channels, fixed, widths is not None
        self.register_buffer("widths", species_numbers(widths))
        self.sums = Electrostatics()

    @torch.jit.unused
    def energies_and_charges(
        self, readouts: dict[str, Tensor], system: System, twice: bool
    ) -> tuple[Tensor, Tensor]:
        """Return the energies [F] in eV, and the charges [n, C] in e, in double.

        Energies are differentiable twice and charges once, if `twice`, else at least energies once.
        """
        raise NotImplementedError

    @torch.jit.unused
    def rough_charges(
        self, readouts: dict[str, Tensor], molecule: Tensor, species: Tensor, total_charge: Tensor
    ) -> Tensor:
        """Return charges [n, C] in e, known without any sum, that the parameters of sums are chosen for."""
        raise NotImplementedError

    def electrostatic(self, charges: Tensor, system: System) -> Tensor:
        """Return the energies [F] in eV of charges [n, C] among each other and in the field."""
        charged = system.charged
        assert charged is not None
        widths: Tensor | None = None
        if self.smeared:
            widths = self.widths.index_select(0, charged.species)
        energies = self.sums(charged.positions, charges, charged.frames, widths, charged.strain)
        field = charged.field
        if field is not None:
            dipoles = sum_frames(charges[:, :1] * charged.positions, system.frame, system.num_frames)
            energies = energies - dipoles @ field
        return energies


def species_numbers(numbers: Sequence[float] | Tensor | None) -> Tensor:
    """Return numbers of the species, [species] in double; none for None. Tensors stay differentiable."""
    return torch.as_tensor([] if numbers is None else numbers, dtype=torch.float64)


class CoulombCouple(ChargeCouple):
    """The energy is the sum of the readout `energy` and the electrostatic energy of charges.

    Args: those of the record in docs/file_format.md.
    """

    def __init__(
        self,
        charges: str,
        rtol: float,
        channels: int = 1,
        values: Sequence[float] | None = None,
        widths: Sequence[float] | None = None,
        weighted: bool = False,
    ):
        fixed = charges == "fixed"
        super().__init__(rtol, channels, fixed, widths)
        if charges not in CHARGES or fixed != (values is not None):
            raise ConfigError(
                f"couple 'coulomb' has charges that are one of {', '.join((*CHARGES, 'equilibrated'))}, and "
                f"values if they are fixed, found {charges!r} and values {values}"
            )
        if channels < 1 or (self.fixed and (channels > 1 or weighted)):
            raise ConfigError(
                "couple 'coulomb' has at least one channel, of fixed charges exactly one without weights, "
                f"found {channels} channel(s) and weighted {weighted}"
            )
        self.weighted = weighted
        more = () if self.fixed else (READOUT_CHARGE, READOUT_CHARGE_WEIGHT)[: 1 + weighted]
        self.needs = (READOUT_ENERGY, *more)
        self.register_buffer("values", species_numbers(values))

    def charges(
        self, readouts: dict[str, Tensor], molecule: Tensor, species: Tensor, total_charge: Tensor
    ) -> Tensor:
        """Return the charges [n, C] in e, in double; arguments as in `Charged`."""
        if self.fixed:
            return self.values.index_select(0, species).unsqueeze(1)
        charges = readouts["charge"].reshape(-1, self.channels)
        return project_charges(charges, total_charge, molecule, self.weights(readouts))

    def weights(self, readouts: dict[str, Tensor]) -> Tensor | None:
        """Return what the missing charge is shared by, [n] in double, or None: all alike."""
        if not self.weighted:
            return None
        v = readouts["charge_weight"].reshape(-1).to(torch.float64)
        return torch.logaddexp(v, torch.zeros_like(v))

    @torch.jit.unused
    def rough_charges(
        self, readouts: dict[str, Tensor], molecule: Tensor, species: Tensor, total_charge: Tensor
    ) -> Tensor:
        """See `ChargeCouple`; these are the charges themselves."""
        return self.charges(readouts, molecule, species, total_charge)

    @torch.jit.unused
    def energies_and_charges(
        self, readouts: dict[str, Tensor], system: System, twice: bool
    ) -> tuple[Tensor, Tensor]:
        """See `ChargeCouple`; everything is differentiable twice."""
        charged = system.charged
        charges = self.charges(readouts, charged.molecule, charged.species, charged.total_charge)
        return self.energies(charges, readouts, system), charges

    def energies(self, charges: Tensor, readouts: dict[str, Tensor], system: System) -> Tensor:
        """Return the energies [F] in eV with charges [n, C]."""
        local = sum_frames(readouts["energy"].reshape(-1), system.frame, system.num_frames)
        return local + self.electrostatic(charges, system)

    def forward(self, readouts: dict[str, Tensor], system: System) -> Tensor:
        """Return the energy [F] in eV, in double."""
        charged = system.charged
        assert charged is not None
        charges = self.charges(readouts, charged.molecule, charged.species, charged.total_charge)
        return self.energies(charges, readouts, system)
