"""Frames as couples with charges need them: total charge, and the parameters of the sums from the core."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from nearsight.couple.charge_frames import charge_frame, join_charge_frames
from nearsight.couple.coulomb import CoulombCouple
from nearsight.couple.couples import build_couple
from nearsight.couple.system import Charged
from nearsight.errors import ConfigError

if TYPE_CHECKING:
    from nearsight.lib import _core

_CUTOFF = 6.0  # Å, of the pairs; a shorter one than the core's own, since autograd keeps much for each pair
_DECAYS = 9.0  # how far beyond rtol the exponent of Gaussians that overlap at the cutoff is taken
_ROUND_OFF = 1e-6  # of a total charge, e


class FrameCharger:
    """Makes `Charged` of frames; those with similar cells share parameters, so that a batch does their meshes
    together.

    Parameters are chosen with random charges ±1, since a model's own are not known before it is trained.

    Args:
        couple: record of kind coulomb.
    """

    def __init__(self, couple: dict[str, Any]):
        self.couple: CoulombCouple = build_couple(couple)
        self.meshes: dict[tuple, list[_core.Pme]] = {}

    def __call__(
        self,
        positions: np.ndarray,
        species: Sequence[int],
        cell: np.ndarray,
        pbc: Sequence[bool],
        total_charge: float | None = None,
    ) -> Charged:
        """Return one frame.

        Args:
            positions: (n, 3) Å.
            species: n indices into the model's species list.
            cell: (3, 3) Å, rows are lattice vectors.
            pbc: periodic or not, for each of them.
            total_charge: e; None: 0, of fixed charges in an open frame what they add up to.

        Raises:
            ConfigError: fixed charges do not add up to the total charge.
            EvaluationError: positions or cell cannot be used, or one direction is periodic.
        """
        pme = None
        if np.any(pbc):
            charges = np.random.default_rng(0).choice([-1.0, 1.0], len(species))
            pme = self._mesh(positions, charges, cell, pbc, self._widths(species))
        return self._charged(positions, species, cell, pbc, total_charge, pme)

    def with_charges(
        self,
        positions: np.ndarray,
        species: Sequence[int],
        cell: np.ndarray,
        pbc: Sequence[bool],
        total_charge: float | None,
        readouts: dict[str, Tensor],
    ) -> Charged:
        """Return one frame with the parameters that the core takes for the charges of these readouts."""
        pme = self.choose(positions, species, cell, pbc, total_charge, readouts) if np.any(pbc) else None
        return self._charged(positions, species, cell, pbc, total_charge, pme)

    def choose(
        self,
        positions: np.ndarray,
        species: Sequence[int],
        cell: np.ndarray,
        pbc: Sequence[bool],
        total_charge: float | None,
        readouts: dict[str, Tensor],
    ) -> _core.Pme:
        """Return the set-up that the core takes for the charges of these readouts in a periodic frame."""
        from nearsight.lib import _core  # the compiled core; frames from elsewhere do without it

        kinds, total = torch.as_tensor(species), torch.tensor([total_charge or 0.0], dtype=torch.float64)
        with torch.no_grad():
            charges = self.couple.charges(readouts, torch.zeros_like(kinds), kinds, total)
        largest = charges[:, int((charges**2).sum(0).argmax())].numpy()
        return _core.Pme(positions, largest, cell, pbc, self._widths(species), rtol=self.couple.rtol)

    def _charged(
        self,
        positions: np.ndarray,
        species: Sequence[int],
        cell: np.ndarray,
        pbc: Sequence[bool],
        total_charge: float | None,
        pme: _core.Pme | None,
    ) -> Charged:
        kinds = torch.as_tensor(np.asarray(species), dtype=torch.int64)
        self.check_total(species, pbc, total_charge)
        frame = charge_frame(positions, cell, pbc, pme, self._widths(species))
        total = torch.tensor([total_charge or 0.0], dtype=torch.float64)
        return Charged(kinds, torch.as_tensor(np.array(positions, dtype=np.float64)), total, frame, None)

    def check_total(self, species: Sequence[int], pbc: Sequence[bool], total_charge: float | None) -> None:
        """Refuse a background that nobody asked for: it would be silently wrong.

        Raises ConfigError where fixed charges do not add up to the total charge.
        """
        if not self.couple.fixed or (total_charge is None and not np.any(pbc)):
            return
        found, expected = float(self.couple.values[torch.as_tensor(species)].sum()), total_charge or 0.0
        if abs(found - expected) > _ROUND_OFF * (1 + abs(found)):
            given = "a periodic frame is taken to have" if total_charge is None else "its total charge is"
            raise ConfigError(
                f"the fixed charges add up to {found:.6g} e, but {given} {expected:.6g} e: check the atoms, "
                "or give that sum as the total charge"
            )

    def _widths(self, species: Sequence[int]) -> np.ndarray | None:
        return self.couple.widths.numpy()[np.asarray(species)] if self.couple.smeared else None

    def _mesh(
        self,
        positions: np.ndarray,
        charges: np.ndarray,
        cell: np.ndarray,
        pbc: Sequence[bool],
        widths: np.ndarray | None,
    ) -> _core.Pme:
        """A set-up that fits. Slabs have their own, since its vacuum is for their thickness."""
        from nearsight.lib import _core

        known = self.meshes.setdefault((len(charges), tuple(map(bool, pbc))), [])
        arguments = (positions, charges, cell, pbc)
        if np.all(pbc):
            for pme in known:
                if pme.fits(*arguments):
                    return pme
        widest = 0.0 if widths is None else widths.max(initial=0.0)
        cutoff = max(_CUTOFF, 2 * widest * math.sqrt(_DECAYS - math.log(self.couple.rtol)))
        known.append(_core.Pme(*arguments, widths, rtol=self.couple.rtol, cutoff=cutoff))
        return known[-1]


def join_charged(frames: Sequence[Charged]) -> Charged:
    """Join frames to one batch, numbered in order."""
    return Charged(
        species=torch.cat([one.species for one in frames]),
        positions=torch.cat([one.positions for one in frames]),
        total_charge=torch.cat([one.total_charge for one in frames]),
        frames=join_charge_frames([one.frames for one in frames]),
        strain=None,
    )
