"""Irreducible representations of O(3): how features of an atom turn when the atoms around it do.

An irrep (l, p) has 2l + 1 components, which turn as the real spherical harmonics Y_lm (m = -l … l) and take
the factor p under inversion. Written "0e" (p = 1), "1o" (p = -1). Those with p = (-1)^l, which harmonics of
vectors have, are called natural.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

_PATTERN = re.compile(r"(\d+)([eo])")


class Irrep(NamedTuple):
    """One irrep."""

    l: int  # noqa: E741
    p: int

    @property
    def size(self) -> int:
        """Number of components."""
        return 2 * self.l + 1

    @property
    def natural(self) -> bool:
        """Whether the parity is that of the harmonics."""
        return self.p == (-1) ** self.l

    def __str__(self) -> str:
        return f"{self.l}{'e' if self.p == 1 else 'o'}"


SCALAR = Irrep(0, 1)


def irrep(text: str) -> Irrep:
    """Return the irrep of a text such as "1o".

    Raises:
        ValueError: it is not of this form.
    """
    match = _PATTERN.fullmatch(text.strip())
    if not match:
        raise ValueError(f"an irrep is a number and a parity, e or o, such as 1o; found {text!r}")
    return Irrep(int(match[1]), 1 if match[2] == "e" else -1)


def parse_irreps(text: str) -> tuple[Irrep, ...]:
    """Return the irreps of a text such as "0e + 1o", in their order: by l, natural ones first.

    Raises:
        ValueError: one of them is not of this form, or appears twice.
    """
    found = [irrep(part) for part in text.split("+")]
    if len(set(found)) < len(found):
        raise ValueError(f"each irrep appears once, as often as there are channels; found {text!r}")
    return in_order(found)


def in_order(irreps: Iterable[Irrep]) -> tuple[Irrep, ...]:
    """Return the irreps by l, natural ones first."""
    return tuple(sorted(irreps, key=lambda which: (which.l, not which.natural)))


def starts(irreps: Sequence[Irrep]) -> list[int]:
    """Return the number of the first component of each irrep, and at the end the number of all."""
    places = [0]
    for which in irreps:
        places.append(places[-1] + which.size)
    return places
