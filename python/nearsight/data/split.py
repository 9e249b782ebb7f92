"""Dividing frames into training, validation and test sets: reproducible, and written down.

A part of a set is asked for as a fraction (0.1), a count (50), or a file with frame numbers (one per line,
from 0, # starts a comment). What is left trains the model.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nearsight.errors import DataError

Part = float | int | Path


@dataclass(frozen=True)
class Split:
    """Frame numbers of the three sets, ascending; they share no frame."""

    training: list[int]
    validation: list[int]
    test: list[int]


def split_frames(
    num_frames: int,
    validation: Part,
    test: Part,
    training: Part | None,
    seed: int,
    excluded: Collection[int] = (),
) -> Split:
    """Divide frames 0 … num_frames-1.

    Args:
        num_frames: how many there are.
        validation, test: fraction of the frames, count, or index file.
        training: the same, or None for all that is left; a smaller training set is contained in every larger
            one of the same seed.
        seed: of the random choice.
        excluded: frames that belong to no set.

    Raises:
        DataError: more frames asked for than there are, or a frame in two sets.
    """
    order = [int(number) for number in np.random.default_rng(seed).permutation(num_frames)]
    chosen: dict[str, list[int]] = {}
    parts = {"validation": validation, "test": test, "training": training}
    for name, part in parts.items():
        if isinstance(part, Path):
            chosen[name] = _read_numbers(part, num_frames, name)
    taken = _disjoint(chosen) | set(excluded)
    free = [number for number in order if number not in taken]
    available = num_frames - len(excluded)
    for name, part in parts.items():
        if name not in chosen:
            count = len(free) if part is None else _count(part, available)
            if count > len(free):
                raise DataError(
                    f"The {name} set asks for {count} frames, but only {len(free)} of {available} are left."
                )
            chosen[name], free = free[:count], free[count:]
    if not chosen["training"]:
        raise DataError(
            f"None of {available} frames is left for training; lower data.validation or data.test."
        )
    return Split(**{name: sorted(numbers) for name, numbers in chosen.items()})


def write_split(
    folder: Path, split: Mapping[str, Sequence[int]], sources: Mapping[str, Sequence[str]]
) -> None:
    """Write <set>.txt with the frame numbers of every set, to be read again as index files.

    Args:
        folder: is made where it is missing.
        split: set → frame numbers.
        sources: set → files that the numbers count through.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, numbers in split.items():
        lines = [f"# {name}: {len(numbers)} frames, numbered from 0 through {', '.join(sources[name])}"]
        lines += [str(number) for number in numbers]
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")


def _count(part: Part, num_frames: int) -> int:
    """A fraction above zero asks for one frame at least."""
    if isinstance(part, float):
        return max(round(part * num_frames), int(part > 0))
    return int(part)


def _read_numbers(path: Path, num_frames: int, name: str) -> list[int]:
    if not path.is_file():
        raise DataError(f"Index file {str(path)!r} of the {name} set does not exist.")
    words = [line.split("#")[0].strip() for line in path.read_text().splitlines()]
    numbers = []
    for number, word in enumerate(words, start=1):
        if not word:
            continue
        if not word.isdecimal() or int(word) >= num_frames:
            raise DataError(
                f"{str(path)!r}, line {number}: expected a frame number from 0 to {num_frames - 1}, "
                f"found {word!r}."
            )
        numbers.append(int(word))
    if len(set(numbers)) != len(numbers):
        raise DataError(f"{str(path)!r} names a frame twice.")
    return numbers


def _disjoint(chosen: Mapping[str, Sequence[int]]) -> set[int]:
    taken: dict[int, str] = {}
    for name, numbers in chosen.items():
        for number in numbers:
            if number in taken:
                raise DataError(f"Frame {number} is in the index files of both {taken[number]} and {name}.")
            taken[number] = name
    return set(taken)
