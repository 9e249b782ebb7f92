"""Labels without what a model does not learn: dispersion that they contain and that is added afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nearsight import keys
from nearsight.couple import LabelDispersion
from nearsight.data import Frame
from nearsight.errors import DataError, EvaluationError
from nearsight.models import DispersionConfig

_CHANGED = (keys.ENERGY, keys.FORCES, keys.VIRIAL)


def without_dispersion(frames: Sequence[Frame], config: DispersionConfig) -> list[Frame]:
    """Return the frames with energies, forces and virials from which the dispersion was subtracted.

    Raises:
        ConfigError: there are no tables for the functional or an element.
        DataError: positions or cell of a frame cannot be used.
    """
    species = sorted({symbol for frame in frames for symbol in frame.symbols})
    dispersion = LabelDispersion(config.record(species), species)
    return [_subtract(frame, dispersion) for frame in frames]


def _subtract(frame: Frame, dispersion: LabelDispersion) -> Frame:
    try:
        found = dispersion(frame.positions, frame.symbols, frame.cell, frame.pbc)
    except EvaluationError as error:
        raise DataError(f"{frame.source}: {error}.") from error
    less = {name: frame.labels[name] - found[name] for name in _CHANGED if name in frame.labels}
    return replace(frame, labels=frame.labels | less)
