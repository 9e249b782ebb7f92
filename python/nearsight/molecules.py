"""Molecules that keep their charges: charges flow, or are shared, within a molecule only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from nearsight import keys
from nearsight.errors import DataError, EvaluationError


class Molecules(NamedTuple):
    """A partition of n atoms into molecules with charges."""

    numbers: np.ndarray  # (n,) int32, from 0
    charges: np.ndarray  # (molecules,) e


def read_molecules(
    molecules: Sequence[int] | np.ndarray | None, charges: Sequence[float] | float | None, num_atoms: int
) -> Molecules | None:
    """Return the molecules that a user gives, or None where there are none.

    Args:
        molecules: a whole number for each atom, the same for those of one molecule.
        charges: e, of each molecule in the ascending order of their numbers, or one for all; None: 0.
        num_atoms: of the system.

    Raises:
        EvaluationError: they do not belong together.
    """
    if molecules is None:
        if charges is not None:
            raise EvaluationError(
                "charges of molecules were given, but not which atoms belong together: give molecules, a "
                "number for each atom, too"
            )
        return None
    given = np.asarray(molecules)
    if given.shape != (num_atoms,) or (given.dtype.kind not in "iu" and num_atoms > 0):
        raise EvaluationError(
            f"molecules have shape {given.shape} and type {given.dtype}, expected a whole number for each of "
            f"{num_atoms} atoms"
        )
    different, numbers = np.unique(given, return_inverse=True)
    values = np.asarray(0.0 if charges is None else charges)
    if values.dtype.kind not in "iuf" or not np.isfinite(values).all():
        raise EvaluationError(f"the charges of molecules are {charges!r}, expected numbers, in e")
    if values.shape not in ((), (1,), different.shape):
        raise EvaluationError(
            f"{values.size} charges were given for {len(different)} molecules: give one for each, in the "
            "ascending order of their numbers, or one for all"
        )
    return Molecules(numbers.astype(np.int32), np.broadcast_to(values, different.shape).astype(np.float64))


def molecules_of(fields: Mapping[str, Any], num_atoms: int, source: str) -> Molecules | None:
    """Return the molecules of a frame: arrays `molecules` with `molecule_charges` beside them, else None.

    Raises DataError where they do not belong together.
    """
    if keys.MOLECULE_CHARGES not in fields:
        return None
    try:
        return read_molecules(fields.get(keys.MOLECULES), fields[keys.MOLECULE_CHARGES], num_atoms)
    except EvaluationError as error:
        raise DataError(f"{source}: {error}.") from error
