"""Reading the data files of n2p2 and RuNNer, usually named input.data: a text file of structures,

    begin
    comment …
    lattice ax ay az            three lines, or none without periodic directions
    atom x y z element charge unused fx fy fz
    energy …
    charge …                    total charge, e
    end

in bohr and hartree unless the user says otherwise: the file itself does not. RuNNer 2 may name the columns
of the atoms after `begin`: position(3) element charge … force(3).
Format: https://compphysvienna.github.io/n2p2/topics/cfg_file.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from nearsight import keys
from nearsight.data.frame import Frame
from nearsight.errors import DataError
from nearsight.units import ENERGY_UNITS, LENGTH_UNITS

RUNNER_UNITS = {"length": "bohr", "energy": "hartree"}
_COLUMNS = ("position(3)", "element", "charge", "unused", "force(3)")
_WIDTHS = {"position": 3, "element": 1, "charge": 1, "force": 3}  # of the columns that are read


def is_runner(head: bytes) -> bool:
    """Whether a file that starts with `head` is of this format: its first word is `begin`."""
    return head.split(maxsplit=1)[:1] == [b"begin"]


def read_runner(text: str, name: str, units: Mapping[str, str] = RUNNER_UNITS) -> list[Frame]:
    """Read the structures of a file, unchecked (see `readers.read_frames`).

    The charges of the atoms become labels unless they are zero in the whole file, which means that they were
    not computed. Comment and total charge go to the frames' `info`.

    Args:
        text: content of the file.
        name: of the file, for messages.
        units: "length" and "energy", names of `units.LENGTH_UNITS` and `units.ENERGY_UNITS`.

    Raises:
        DataError: a line that is not of the format, with its number.
    """
    lines = ((number, line.split()) for number, line in enumerate(text.splitlines(), start=1))
    structures = list(_structures(lines, name))
    charged = any(np.any(s.columns("charge")) for s in structures if "charge" in s.layout)
    length, energy = LENGTH_UNITS[units["length"]], ENERGY_UNITS[units["energy"]]
    frames = []
    for number, structure in enumerate(structures):
        frame = structure.frame(length, energy, f"{name}, frame {number}")
        if not charged:
            frame.labels.pop(keys.CHARGES, None)
        frame.label_keys = {label: "input.data" for label in frame.labels}
        frames.append(frame)
    return frames


@dataclass
class _Structure:
    """What stands between `begin` and `end`, in the units of the file."""

    layout: dict[str, slice]
    symbols: list[str] = field(default_factory=list)
    rows: list[list[float]] = field(default_factory=list)  # columns of an atom, 0 for its symbol
    cell: list[list[float]] = field(default_factory=list)
    energy: float | None = None
    info: dict[str, str | float] = field(default_factory=dict)

    def columns(self, name: str) -> np.ndarray:
        width = self.layout[name].stop - self.layout[name].start
        return np.array([row[self.layout[name]] for row in self.rows]).reshape(-1, width)

    def frame(self, length: float, energy: float, source: str) -> Frame:
        labels = {}
        if self.energy is not None:
            labels[keys.ENERGY] = self.energy * energy
        if "force" in self.layout:
            labels[keys.FORCES] = self.columns("force") * (energy / length)
        if "charge" in self.layout:
            labels[keys.CHARGES] = self.columns("charge")[:, 0]
        return Frame(
            positions=self.columns("position") * length,
            symbols=self.symbols,
            cell=np.array(self.cell or np.zeros((3, 3))) * length,
            pbc=[bool(self.cell)] * 3,
            labels=labels,
            info=self.info,
            source=source,
        )


def _structures(lines: Iterator[tuple[int, list[str]]], name: str) -> Iterator[_Structure]:
    structure, begin, number = None, 0, 0
    for number, words in lines:
        if not words or words[0].startswith("#"):
            continue
        keyword, *values = words
        try:
            if structure is None and keyword == "begin":
                structure, begin = _Structure(_layout(values)), number
            elif structure is None:
                raise _Malformed("'begin'", keyword)
            elif keyword == "end":
                if len(structure.cell) not in (0, 3):
                    raise _Malformed("three lattice vectors or none before 'end'", str(len(structure.cell)))
                yield structure
                structure = None
            else:
                _read_line(structure, keyword, values)
        except _Malformed as problem:
            raise DataError(
                f"{name!r}, line {number}: expected {problem.expected}, found {problem.found!r}."
            ) from None
    if structure is not None:
        raise DataError(
            f"{name!r}, line {number}: the file ends, and the structure of line {begin} has no 'end'."
        )


def _read_line(structure: _Structure, keyword: str, values: list[str]) -> None:
    if keyword == "atom":
        _read_atom(structure, values)
    elif keyword == "lattice":
        structure.cell.append(_numbers(values, 3, "three numbers after 'lattice'"))
    elif keyword == "energy":
        (structure.energy,) = _numbers(values, 1, "a number after 'energy'")
    elif keyword == "charge":
        (structure.info["total_charge"],) = _numbers(values, 1, "a number after 'charge'")
    elif keyword == "comment":
        structure.info["comment"] = " ".join(values)
    else:
        raise _Malformed("atom, lattice, energy, charge, comment or end", keyword)


def _read_atom(structure: _Structure, values: list[str]) -> None:
    from ase.data import atomic_numbers

    width = max(columns.stop for columns in structure.layout.values())
    place = structure.layout["element"].start
    if len(values) < width:
        raise _Malformed(f"{width} columns after 'atom'", " ".join(values))
    symbol = values.pop(place)
    if symbol not in atomic_numbers:
        raise _Malformed(f"a chemical symbol in column {place + 1} after 'atom'", symbol)
    numbers = _numbers(values[: width - 1], width - 1, f"numbers beside the symbol {symbol}")
    structure.symbols.append(symbol)
    structure.rows.append([*numbers[:place], 0.0, *numbers[place:]])


def _layout(words: Sequence[str]) -> dict[str, slice]:
    """Name of a property of an atom (without a plural s) → its columns."""
    layout, start = {}, 0
    for word in words or _COLUMNS:
        match = re.fullmatch(r"([\w-]+?)s?(?:\((\d+)\))?", word)
        if match is None:
            raise _Malformed("names of columns such as force(3)", word)
        width = int(match[2] or 1)
        layout[match[1]] = slice(start, start + width)
        start += width
    for name, width in _WIDTHS.items():
        found = layout[name].stop - layout[name].start if name in layout else 0
        if found != width and (found or name in ("position", "element")):
            raise _Malformed(f"{name}({width}) among the columns after 'begin'", " ".join(words))
    return layout


def _numbers(words: Sequence[str], count: int, expected: str) -> list[float]:
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        raise _Malformed(expected, " ".join(words)) from None
    if len(numbers) != count:
        raise _Malformed(expected, " ".join(words))
    return numbers


class _Malformed(Exception):
    def __init__(self, expected: str, found: str) -> None:
        self.expected, self.found = expected, found
