"""Frames as couples with charges need them: total charge, and the parameters of the sums from the core."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from nearsight.couple.charge_frames import charge_frame, join_charge_frames
from nearsight.couple.coulomb import ChargeCouple
from nearsight.couple.couples import build_couple
from nearsight.couple.system import Charged
from nearsight.errors import ConfigError
from nearsight.molecules import Molecules

if TYPE_CHECKING:
    from nearsight.lib import _core

_CUTOFF = 6.0  # Å, of the pairs; a shorter one than the core's own, since autograd keeps much for each pair
_DECAYS = 9.0  # how far beyond rtol the exponent of Gaussians that overlap at the cutoff is taken
_ROUND_OFF = 1e-6  # of a total charge, e


class ChargedStructure(NamedTuple):
    """A frame of n atoms, as a couple with charges needs it."""

    positions: np.ndarray  # (n, 3) Å
    species: Sequence[int]  # n indices into the model's species list
    cell: np.ndarray  # (3, 3) Å, rows are lattice vectors
    pbc: Sequence[bool]  # periodic or not, for each of them
    total_charge: float | None = None  # e; None: 0, of fixed charges in an open frame what they add up to
    molecules: Molecules | None = None  # in place of a total charge

    @property
    def is_periodic(self) -> bool:
        """Whether one of the directions is."""
        return bool(np.any(self.pbc))

    @property
    def known_charge(self) -> Tensor:
        """The charges of the molecules, or the total charge [1], 0 where it is not given; e."""
        if self.molecules is not None:
            return torch.tensor(self.molecules.charges)
        return torch.tensor([self.total_charge or 0.0], dtype=torch.float64)

    @property
    def molecule(self) -> Tensor:
        """The number of the molecule of each atom, [n]."""
        if self.molecules is not None:
            return torch.tensor(self.molecules.numbers, dtype=torch.int64)
        return torch.zeros(len(self.species), dtype=torch.int64)


class FrameCharger:
    """Makes `Charged` of frames; those with similar cells share parameters, so that a batch does their meshes
    together.

    Parameters are chosen with random charges ±1, since a model's own are not known before it is trained.

    Args:
        couple: record of kind coulomb.
    """

    def __init__(self, couple: dict[str, Any]):
        self.couple: ChargeCouple = build_couple(couple)
        self.meshes: dict[tuple, list[_core.Pme]] = {}

    def __call__(self, structure: ChargedStructure) -> Charged:
        """Return one frame.

        Raises:
            ConfigError: fixed charges do not add up to the total charge.
            EvaluationError: positions or cell cannot be used, or one direction is periodic.
        """
        return self._charged(structure, self._mesh(structure) if structure.is_periodic else None)

    def with_charges(self, structure: ChargedStructure, readouts: dict[str, Tensor]) -> Charged:
        """Return one frame with the parameters that the core takes for the charges of these readouts."""
        return self._charged(structure, self.choose(structure, readouts) if structure.is_periodic else None)

    def choose(self, structure: ChargedStructure, readouts: dict[str, Tensor]) -> _core.Pme:
        """Return the set-up that the core takes for the charges of these readouts in a periodic frame."""
        kinds = torch.as_tensor(structure.species)
        with torch.no_grad():
            known = (structure.molecule, kinds, structure.known_charge)
            charges = self.couple.rough_charges(readouts, *known)
        return self._set_up(structure, charges[:, int((charges**2).sum(0).argmax())].numpy())

    def check_total(self, structure: ChargedStructure) -> None:
        """Refuse a background that nobody asked for: it would be silently wrong.

        Raises ConfigError where fixed charges do not add up to the total charge, or those of molecules.
        """
        total, molecules = structure.total_charge, structure.molecules
        if not self.couple.fixed or (total is None and molecules is None and not structure.is_periodic):
            return
        values = self.couple.values[torch.as_tensor(structure.species)]
        known = structure.known_charge.tolist()
        for number, expected in enumerate(known):
            found = float(values[structure.molecule == number].sum())
            if abs(found - expected) <= _ROUND_OFF * (1 + abs(found)):
                continue
            given = "a periodic frame is taken to have" if total is None else "its total charge is"
            if molecules is not None:
                given = f"molecule {number} of {len(known)} is to have"
            raise ConfigError(
                f"the fixed charges add up to {found:.6g} e, but {given} {expected:.6g} e: check the atoms, "
                "or give that sum as the charge"
            )

    def _charged(self, structure: ChargedStructure, pme: _core.Pme | None) -> Charged:
        self.check_total(structure)
        kinds = torch.as_tensor(np.asarray(structure.species), dtype=torch.int64)
        positions = torch.as_tensor(np.array(structure.positions, dtype=np.float64))
        widths = self._widths(structure.species)
        frame = charge_frame(structure.positions, structure.cell, structure.pbc, pme, widths)
        known = (structure.known_charge, structure.molecule)
        return Charged(kinds, positions, *known, frame, None, None)

    def _widths(self, species: Sequence[int]) -> np.ndarray | None:
        return self.couple.widths.numpy()[np.asarray(species)] if self.couple.smeared else None

    def _mesh(self, structure: ChargedStructure) -> _core.Pme:
        """A set-up that fits. Slabs have their own, since its vacuum is for their thickness."""
        charges = np.random.default_rng(0).choice([-1.0, 1.0], len(structure.species))
        known = self.meshes.setdefault((len(charges), tuple(map(bool, structure.pbc))), [])
        if np.all(structure.pbc):
            for pme in known:
                if pme.fits(structure.positions, charges, structure.cell, structure.pbc):
                    return pme
        widths = self._widths(structure.species)
        widest = 0.0 if widths is None else widths.max(initial=0.0)
        cutoff = max(_CUTOFF, 2 * widest * math.sqrt(_DECAYS - math.log(self.couple.rtol)))
        known.append(self._set_up(structure, charges, cutoff))
        return known[-1]

    def _set_up(self, structure: ChargedStructure, charges: np.ndarray, cutoff: float = 0.0) -> _core.Pme:
        """The core's parameters for charges; cutoff in Å, 0: the core's own choice."""
        from nearsight.lib import _core  # the compiled core; frames from elsewhere do without it

        arguments = (structure.positions, charges, structure.cell, structure.pbc)
        widths = self._widths(structure.species)
        return _core.Pme(*arguments, widths, rtol=self.couple.rtol, cutoff=cutoff)


def join_charged(frames: Sequence[Charged]) -> Charged:
    """Join frames to one batch, frames and molecules numbered in order."""
    molecules = np.cumsum([0] + [len(one.total_charge) for one in frames])
    return Charged(
        species=torch.cat([one.species for one in frames]),
        positions=torch.cat([one.positions for one in frames]),
        total_charge=torch.cat([one.total_charge for one in frames]),
        molecule=torch.cat([one.molecule + int(first) for one, first in zip(frames, molecules)]),
        frames=join_charge_frames([one.frames for one in frames]),
        strain=None,
        field=None,
    )
