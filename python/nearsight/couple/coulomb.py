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

PHYSICAL = ("fixed", "environment")  # meant to be charges of atoms, which data may have
CHARGES = (*PHYSICAL, "latent")


class CoulombCouple(nn.Module):
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
        super().__init__()
        self.fixed = charges == "fixed"
        if charges not in CHARGES or self.fixed != (values is not None):
            raise ConfigError(
                f"couple 'coulomb' has charges that are one of {', '.join(CHARGES)}, and values if they are "
                f"fixed, found {charges!r} and values {values}"
            )
        if channels < 1 or (self.fixed and (channels > 1 or weighted)):
            raise ConfigError(
                "couple 'coulomb' has at least one channel, of fixed charges exactly one without weights, "
                f"found {channels} channel(s) and weighted {weighted}"
            )
        self.rtol, self.channels = rtol, channels
        self.smeared, self.weighted = widths is not None, weighted
        more = () if self.fixed else (READOUT_CHARGE, READOUT_CHARGE_WEIGHT)[: 1 + weighted]
        self.needs = (READOUT_ENERGY, *more)
        for name, numbers in (("values", values), ("widths", widths)):
            self.register_buffer(name, torch.tensor(numbers or [], dtype=torch.float64))
        self.sums = Electrostatics()

    def charges(
        self, readouts: dict[str, Tensor], frame: Tensor, species: Tensor, total_charge: Tensor
    ) -> Tensor:
        """Return the charges [n, C] in e, in double; arguments as in `System` and `Charged`."""
        if self.fixed:
            return self.values.index_select(0, species).unsqueeze(1)
        charges = readouts["charge"].reshape(-1, self.channels)
        return project_charges(charges, total_charge, frame, self.weights(readouts))

    def weights(self, readouts: dict[str, Tensor]) -> Tensor | None:
        """Return what the missing charge is shared by, [n] in double, or None: all alike."""
        if not self.weighted:
            return None
        v = readouts["charge_weight"].reshape(-1).to(torch.float64)
        return torch.logaddexp(v, torch.zeros_like(v))

    def forward(self, readouts: dict[str, Tensor], system: System) -> Tensor:
        """Return the energy [F] in eV, in double."""
        charged = system.charged
        assert charged is not None
        charges = self.charges(readouts, system.frame, charged.species, charged.total_charge)
        widths: Tensor | None = None
        if self.smeared:
            widths = self.widths.index_select(0, charged.species)
        electrostatic = self.sums(charged.positions, charges, charged.frames, widths, charged.strain)
        field = charged.field
        if field is not None:
            dipoles = sum_frames(charges[:, :1] * charged.positions, system.frame, system.num_frames)
            electrostatic = electrostatic - dipoles @ field
        return sum_frames(readouts["energy"].reshape(-1), system.frame, system.num_frames) + electrostatic
