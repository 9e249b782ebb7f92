"""Frames as the sums over charges need them: boxes, pairs and parameters, made once by the compiled core."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from nearsight.couple.electrostatics import ChargeFrames
from nearsight.errors import ConfigError


def charge_frame(
    positions: ArrayLike, cell: ArrayLike, pbc: ArrayLike, parameters: Mapping[str, Any]
) -> ChargeFrames:
    """Return one frame, ready for `Electrostatics`.

    positions[n, 3] Å need not be wrapped; the rows of cell[3, 3] Å are lattice vectors, of which a slab's along its
    normal has no meaning; pbc[3]. `parameters` are those of a `_core.Pme` that was set up for this frame or one
    like it, with the same periodic directions.

    Raises:
        ConfigError: the parameters are those of charges that are all zero.
        EvaluationError: positions or cell cannot be used.
    """
    from nearsight.lib import _core  # the compiled core; frames from elsewhere do without it

    positions = np.asarray(positions, dtype=np.float64)
    pbc = np.asarray(pbc, dtype=bool)
    if not pbc.any():
        box = np.eye(3)
        pairs = np.stack(np.triu_indices(len(positions), 1))
        shifts = np.zeros((pairs.shape[1], 3), dtype=np.int64)
    elif parameters["order"] == 0:
        raise ConfigError(
            "the parameters of the lattice sum are those of charges that are all zero, found for a frame that "
            "is periodic; set _core.Pme up with charges as large as those to come"
        )
    else:
        box = _box(np.array(cell, dtype=np.float64), pbc, parameters["height"])
        pairs, shifts, _ = _core.neighbor_list(positions, box, [True] * 3, parameters["cutoff"])
        once = _comes_first(*pairs, shifts)
        pairs, shifts = pairs[:, once], shifts[once]
    image_atoms, image_shifts, images = _images(pairs[1], shifts)
    return ChargeFrames(
        frame=torch.zeros(len(positions), dtype=torch.int64),
        boxes=torch.from_numpy(box).unsqueeze(0),
        pbc=torch.from_numpy(pbc).unsqueeze(0),
        splitting=torch.tensor([parameters["splitting"]], dtype=torch.float64),
        cutoff=torch.tensor([parameters["cutoff"]], dtype=torch.float64),
        order=torch.tensor([parameters["order"]]),
        mesh=torch.tensor([parameters["mesh"]]),
        image_atoms=torch.from_numpy(image_atoms.astype(np.int32)),
        image_shifts=torch.from_numpy(image_shifts.astype(np.int32)),
        pairs=torch.from_numpy(np.stack([pairs[0], images]).astype(np.int32)),
    )


def join_charge_frames(frames: Sequence[ChargeFrames]) -> ChargeFrames:
    """Join frames to one batch, numbered in order."""
    numbers = np.cumsum([0] + [one.boxes.size(0) for one in frames])
    atoms = np.cumsum([0] + [one.frame.numel() for one in frames])
    images = np.cumsum([0] + [one.image_atoms.numel() for one in frames])
    numbered = [
        one._replace(
            frame=one.frame + int(number),
            image_atoms=one.image_atoms + int(atom),
            pairs=one.pairs + one.pairs.new_tensor([[atom], [image]]),
        )
        for one, number, atom, image in zip(frames, numbers, atoms, images)
    ]
    return ChargeFrames(*(torch.cat(parts, dim=-1 if parts[0] is numbered[0].pairs else 0) for parts in zip(*numbered)))


def _box(cell: np.ndarray, pbc: np.ndarray, height: float) -> np.ndarray:
    """The cell, of a slab with `height` Å along its normal."""
    if not pbc.all():
        along = int(np.argmin(pbc))
        normal = np.cross(cell[(along + 1) % 3], cell[(along + 2) % 3])
        cell[along] = height / np.linalg.norm(normal) * normal
    return cell


def _comes_first(centers: np.ndarray, neighbors: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Which of directed pairs to keep, so that each pair is there once."""
    x, y, z = shifts.T
    forward = (x > 0) | ((x == 0) & ((y > 0) | ((y == 0) & (z > 0))))
    return (centers < neighbors) | ((centers == neighbors) & forward)


def _images(atoms: np.ndarray, shifts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The different pairs of an atom and a shift, and the number of each that was given."""
    table = np.column_stack([atoms, shifts])
    lowest = table.min(axis=0, initial=0)
    sizes = table.max(axis=0, initial=0) - lowest + 1
    keys, numbers = np.unique(np.ravel_multi_index(tuple((table - lowest).T), sizes), return_inverse=True)
    unique = np.stack(np.unravel_index(keys, sizes), axis=1) + lowest
    return unique[:, 0], unique[:, 1:], numbers
