"""Frames as the sums over their charges need them: boxes, pairs and parameters, made once by the core."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike

from nearsight.couple.electrostatics import ChargeFrames
from nearsight.errors import ConfigError

if TYPE_CHECKING:
    from nearsight.lib import _core


def charge_frame(
    positions: ArrayLike,
    cell: ArrayLike,
    pbc: ArrayLike,
    pme: _core.Pme | None = None,
    widths: ArrayLike | None = None,
) -> ChargeFrames:
    """Return one frame for `Electrostatics`.

    positions[n, 3] Å need not be wrapped; the rows of cell[3, 3] Å are lattice vectors; pbc[3] says which of
    them are periodic: 0, 2 (slab) or 3. `pme`, not needed for open frames, has the parameters; set up for
    this frame or one like it. widths[n] Å, of Gaussian charges, say how much vacuum a slab needs.

    Raises:
        ConfigError: the frame is periodic, and there is no `pme`, or it was set up without charges.
        EvaluationError: positions or cell cannot be used, or `pme` does not fit them.
    """
    positions, pbc = np.asarray(positions, dtype=np.float64), np.asarray(pbc, dtype=bool)
    if pbc.any():
        parameters = {} if pme is None else pme.parameters
        if not parameters.get("order"):
            raise ConfigError(
                "a periodic frame needs the parameters of a lattice sum, found none; "
                "set _core.Pme up with charges that are not all zero, and give it"
            )
        box = pme.box(positions, np.asarray(cell, dtype=np.float64), pbc, widths)
        pairs, shifts = _pairs(positions, box, parameters["cutoff"])
    else:
        parameters = {"splitting": 0.0, "cutoff": 0.0, "order": 0, "mesh": [0, 0, 0]}
        box, pairs = np.eye(3), np.stack(np.triu_indices(len(positions), 1))
        shifts = np.zeros((pairs.shape[1], 3), dtype=np.int64)
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
    *rows, pairs = zip(*numbered)
    return ChargeFrames(*map(torch.cat, rows), torch.cat(pairs, dim=1))


def _pairs(positions: np.ndarray, box: np.ndarray, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
    """Return atoms [2, E] and shifts [E, 3] of the pairs closer than the cutoff, each once."""
    from nearsight.lib import _core  # the compiled core; frames from elsewhere do without it

    pairs, shifts, _ = _core.neighbor_list(positions, box, [True] * 3, cutoff)
    x, y, z = shifts.T
    forward = (x > 0) | ((x == 0) & ((y > 0) | ((y == 0) & (z > 0))))
    once = (pairs[0] < pairs[1]) | ((pairs[0] == pairs[1]) & forward)
    return pairs[:, once], shifts[once]


def _images(atoms: np.ndarray, shifts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the different ones of atoms and shifts, and for each given one its number among them."""
    table = np.column_stack([atoms, shifts])
    lowest = table.min(axis=0, initial=0)
    sizes = table.max(axis=0, initial=0) - lowest + 1
    keys, numbers = np.unique(np.ravel_multi_index(tuple((table - lowest).T), sizes), return_inverse=True)
    unique = np.stack(np.unravel_index(keys, sizes), axis=1) + lowest
    return unique[:, 0], unique[:, 1:], numbers
