"""The ranges of the features in the training set: what a model file knows about them, and what they lack."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_NAMED = 5  # features of one sentence; a set may have hundreds
_ROUNDING = 1e-12  # relative width below which a range is one value


@dataclass(frozen=True)
class TrainingRanges:
    """The ranges of one species' features in the training set."""

    species: str
    known: bool
    num_features: int = 0
    constant: tuple[str, ...] = ()  # names of the features that have one value only

    @property
    def complete(self) -> bool:
        """Whether every feature has a range."""
        return self.known and not self.constant

    def __str__(self) -> str:
        if not self.known:
            return f"{self.species}: not known"
        text = f"{self.species}: {self.num_features} features"
        if not self.constant:
            return text
        more = len(self.constant) - _NAMED
        names = "; ".join(self.constant[:_NAMED]) + (f"; and {more} more" if more > 0 else "")
        return f"{text}, of which {len(self.constant)} have one value only: {names}"


def training_ranges(
    species: Sequence[str], tensors: Mapping[str, Iterable[Any]], labels: Mapping[str, Sequence[str]]
) -> list[TrainingRanges]:
    """Return the ranges of each species from the tensors of weights.safetensors and the names of its
    features."""
    found = []
    for symbol in species:
        if f"{symbol}.min" not in tensors:
            found.append(TrainingRanges(symbol, known=False))
            continue
        ranges = [tuple(map(float, pair)) for pair in zip(tensors[f"{symbol}.min"], tensors[f"{symbol}.max"])]
        constant = tuple(
            name
            for name, (low, high) in zip(labels[symbol], ranges)
            if high - low <= _ROUNDING * max(abs(low), abs(high))
        )
        found.append(TrainingRanges(symbol, True, len(ranges), constant))
    return found
