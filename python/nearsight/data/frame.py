"""One labelled structure, and the checks that every structure passes before it is used.

Positions and cell in Å (rows of `cell` are lattice vectors); labels have the units and shapes of
`nearsight.keys`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nearsight import keys
from nearsight.errors import DataError
from nearsight.molecules import Molecules, molecules_of

MIN_DISTANCE = 0.2  # Å; no bond is shorter than 0.74 Å, and repulsive scans stop well above this
MAX_FORCE = 500.0  # eV/Å; default of `data.max_force`
MAX_ENERGY_PER_ATOM = 1e7  # eV; all-electron energies of the heaviest elements stay below 1.6e6
VIRIAL_ASYMMETRY = 1e-2  # of the largest entry; rounding in files stays below

_ROUND_OFF = 1e-6  # of a total charge, e
_FREE_VOLUME = 1e-6  # of the product of the lattice vectors' lengths: below, the cell is degenerate


@dataclass
class Frame:
    """One structure with its reference labels.

    Attributes:
        positions: (n, 3) Å; need not be wrapped into the cell.
        symbols: n chemical symbols.
        cell: (3, 3) Å; rows are lattice vectors, zero rows only in directions that are not periodic.
        pbc: (3,) bool.
        labels: reference values under the names of `keys.LABELS`, in their units and shapes.
        info: everything else that the file held about the frame: scalars, strings, arrays.
        source: where it comes from, for messages, e.g. "water.xyz, frame 12" (frames count from 0).
        label_keys: for every label the key of the file that it was found under, for the report.
    """

    positions: np.ndarray
    symbols: list[str]
    cell: np.ndarray
    pbc: np.ndarray
    labels: dict[str, Any] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    source: str = "frame"
    label_keys: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.positions = np.asarray(self.positions, dtype=float).reshape(-1, 3)
        self.symbols = [str(symbol) for symbol in self.symbols]
        self.cell = np.asarray(self.cell, dtype=float).reshape(3, 3)
        self.pbc = np.asarray(self.pbc, dtype=bool).reshape(3)

    def __len__(self) -> int:
        return len(self.symbols)

    @property
    def volume(self) -> float:
        """Volume of the cell, Å³; zero where a lattice vector is missing."""
        return abs(float(np.linalg.det(self.cell)))


def total_charge(info: Mapping[str, Any], source: str) -> float | None:
    """What a frame's `info` says about its total charge under one of `keys.TOTAL_CHARGE_KEYS`, e, or None.

    Raises DataError for something else than a number.
    """
    for key in keys.TOTAL_CHARGE_KEYS:
        if key in info:
            value = np.asarray(info[key])
            if value.size != 1 or value.dtype.kind not in "iuf" or not np.isfinite(value).all():
                raise DataError(
                    f"{source}: the total charge (key {key!r}) is {info[key]!r}, expected one number, in e."
                )
            return float(value.reshape(()))
    return None


def charges_given(
    info: Mapping[str, Any], num_atoms: int, source: str
) -> tuple[float | None, Molecules | None]:
    """Return the total charge of a frame, e, or its molecules with charges; None: not given.

    Raises DataError where they contradict each other.
    """
    total, molecules = total_charge(info, source), molecules_of(info, num_atoms, source)
    if molecules is None:
        return total, None
    found = float(molecules.charges.sum())
    if total is not None and abs(total - found) > _ROUND_OFF * (1 + abs(found)):
        raise DataError(
            f"{source}: the charges of the molecules add up to {found:.6g} e, but the total charge is "
            f"{total:.6g} e: correct one of them, or leave the total charge out."
        )
    return None, molecules


def check_frame(frame: Frame, max_force: float = MAX_FORCE) -> None:
    """Refuse a frame that cannot be right: its structure first, then its labels.

    Raises DataError with the frame's source in the sentence.
    """
    _check_structure(frame)
    check_distances(frame)
    _check_labels(frame, max_force)


def _check_structure(frame: Frame) -> None:
    if len(frame) == 0:
        raise DataError(f"{frame.source} holds no atoms.")
    if len(frame.positions) != len(frame):
        raise DataError(f"{frame.source} has {len(frame)} symbols but {len(frame.positions)} positions.")
    for name, values in (("position", frame.positions), ("lattice vector", frame.cell)):
        if not np.isfinite(values).all():
            raise DataError(f"{frame.source} has a {name} that is NaN or infinite.")
    lengths = np.linalg.norm(frame.cell, axis=1)
    if frame.pbc.any() and (lengths[frame.pbc] == 0).any():
        direction = "abc"[int(np.flatnonzero(frame.pbc & (lengths == 0))[0])]
        raise DataError(f"{frame.source} is periodic along {direction} but has no lattice vector there.")
    cell = complete_cell(frame.cell)
    if abs(np.linalg.det(cell)) < _FREE_VOLUME * np.prod(np.linalg.norm(cell, axis=1)):
        raise DataError(
            f"{frame.source} has a degenerate cell: its lattice vectors {frame.cell.tolist()} lie in a plane."
        )


def complete_cell(cell: np.ndarray) -> np.ndarray:
    """The cell with zero lattice vectors replaced by unit vectors normal to the others, (3, 3) Å."""
    missing = np.linalg.norm(cell, axis=1) == 0
    if not missing.any():
        return cell
    completed = cell.copy()
    normals = np.linalg.svd(cell[~missing])[2] if not missing.all() else np.eye(3)
    completed[missing] = normals[3 - missing.sum() :]
    return completed


def check_distances(frame: Frame, min_distance: float = MIN_DISTANCE) -> None:
    """Refuse two atoms (or an atom and a periodic image) closer than `min_distance` Å.

    In coordinates along the normals of the cell's faces no component of a distance exceeds its length, so
    that a search in a box with periodic faces finds every close pair of any cell.
    """
    from scipy.spatial import cKDTree

    inverse = np.linalg.inv(complete_cell(frame.cell))
    heights = 1 / np.linalg.norm(inverse, axis=0)
    if (heights[frame.pbc] < 2 * min_distance).any():  # the nearest image is then not unique
        raise DataError(
            f"{frame.source}: two faces of the cell are only {min(heights[frame.pbc]):.3g} Å apart."
        )
    fractional = frame.positions @ inverse
    wrapped = np.where(frame.pbc, np.mod(fractional, 1.0), fractional) * heights
    wrapped[:, frame.pbc] -= np.where(wrapped >= heights, heights, 0.0)[:, frame.pbc]  # -1e-17 % 1.0 is 1.0
    tree = cKDTree(wrapped, boxsize=np.where(frame.pbc, heights, 0.0))
    pairs = tree.query_pairs(min_distance, p=np.inf, output_type="ndarray")
    difference = fractional[pairs[:, 0]] - fractional[pairs[:, 1]]
    difference -= np.where(frame.pbc, np.round(difference), 0.0)
    distance = np.linalg.norm(difference @ complete_cell(frame.cell), axis=1)
    if (distance < min_distance).any():
        i, j = pairs[int(distance.argmin())]
        raise DataError(
            f"{frame.source}: atoms {i} ({frame.symbols[i]}) and {j} ({frame.symbols[j]}) lie on top of each "
            f"other, {distance.min():.3g} Å apart; the least allowed is {min_distance} Å."
        )


def _check_labels(frame: Frame, max_force: float) -> None:
    for name, value in frame.labels.items():
        found = f"{name} (key {frame.label_keys.get(name, name)!r})"
        array = np.asarray(value, dtype=float)
        expected = keys.label_shape(name, len(frame))
        if array.shape != expected:
            raise DataError(f"{frame.source}: {found} has shape {array.shape}, expected {expected}.")
        if not np.isfinite(array).all():
            raise DataError(f"{frame.source}: {found} is NaN or infinite; remove the label or the frame.")
        frame.labels[name] = float(array) if name == keys.ENERGY else array
    _check_sizes(frame, max_force)


def _check_sizes(frame: Frame, max_force: float) -> None:
    labels = frame.labels
    if keys.ENERGY in labels and abs(labels[keys.ENERGY]) > MAX_ENERGY_PER_ATOM * len(frame):
        raise DataError(
            f"{frame.source}: an energy of {labels[keys.ENERGY]:.3g} eV for {len(frame)} atoms cannot be "
            "right; energies are expected in eV."
        )
    largest = np.linalg.norm(labels.get(keys.FORCES, np.zeros((1, 3))), axis=1).max()
    if largest > max_force:
        raise DataError(
            f"{frame.source}: a force of {largest:.4g} eV/Å exceeds data.max_force = {max_force:g}; "
            "remove the frame, check the unit (eV/Å), or raise data.max_force."
        )
    if keys.VIRIAL in labels:
        virial = labels[keys.VIRIAL]
        asymmetry = np.abs(virial - virial.T).max()
        if asymmetry > VIRIAL_ASYMMETRY * np.abs(virial).max():
            raise DataError(
                f"{frame.source}: virial is not symmetric (entries differ by {asymmetry:.3g} eV); "
                "expected -dE/dstrain as a symmetric 3x3 matrix or in the order xx yy zz yz xz xy."
            )
        labels[keys.VIRIAL] = 0.5 * (virial + virial.T)
