"""Structures near given ones, for a model that labels what no one has computed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nearsight.data.frame import Frame


def perturbed(frame: Frame, rattle: float, strain: float, rng: np.random.Generator) -> Frame:
    """Return a frame with displaced atoms, without labels.

    Args:
        frame: where it starts from.
        rattle: standard deviation of the displacement of each coordinate, Å.
        strain: largest entry of the symmetric strain of a frame that is periodic in all directions; uniform.
        rng: source of the displacements.
    """
    positions, cell = frame.positions, frame.cell
    if frame.pbc.all():
        entries = np.triu(rng.uniform(-strain, strain, (3, 3)))
        deformation = np.eye(3) + entries + np.triu(entries, 1).T
        positions, cell = positions @ deformation, cell @ deformation
    positions = positions + rng.normal(0.0, rattle, positions.shape)
    return replace(frame, positions=positions, cell=cell, labels={}, label_keys={})
