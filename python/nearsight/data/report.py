"""What the data hold, printed before training, and what about them looks wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich.box import SIMPLE
from rich.table import Table

from nearsight import keys
from nearsight.data.frame import Frame
from nearsight.data.reference_energies import LEAST_SQUARES, ReferenceEnergies

MAX_BINDING = 15.0  # eV per atom; the largest cohesive energy of an elemental solid is 8.9 (W)
_MISFIT = {
    False: "the reference energies are probably not of the same method or unit as the data "
    "(data.reference_energies: least_squares fits them to the data).",
    True: "it is extremely compressed, or energies of different methods or units are mixed.",
}


@dataclass(frozen=True)
class Summary:
    """Numbers of one set of frames.

    Attributes:
        frames, atoms: counts.
        species: symbol → number of atoms.
        labels: label → (frames that have it, keys it was found under).
        forces: min, median and max |F| over atoms, eV/Å; empty without forces.
        binding: mean, min and max of (E - ΣE0) per atom over frames, eV; empty without energies.
    """

    frames: int
    atoms: int
    species: dict[str, int]
    labels: dict[str, tuple[int, list[str]]]
    forces: tuple[float, ...]
    binding: tuple[float, ...]


def summarize(frames: Sequence[Frame], reference: ReferenceEnergies) -> Summary:
    """Count and measure a set of frames."""
    labels = {}
    for name in keys.LABELS:
        found = [frame.label_keys.get(name, name) for frame in frames if name in frame.labels]
        if found:
            labels[name] = (len(found), sorted(set(found)))
    norms = [np.linalg.norm(f.labels[keys.FORCES], axis=1) for f in frames if keys.FORCES in f.labels]
    binding = [
        (frame.labels[keys.ENERGY] - reference.total(frame.symbols)) / len(frame)
        for frame in frames
        if keys.ENERGY in frame.labels
    ]
    forces = np.concatenate(norms) if norms else np.empty(0)
    return Summary(
        frames=len(frames),
        atoms=sum(len(frame) for frame in frames),
        species=dict(sorted(Counter(symbol for frame in frames for symbol in frame.symbols).items())),
        labels=labels,
        forces=(forces.min(), float(np.median(forces)), forces.max()) if norms else (),
        binding=(float(np.mean(binding)), min(binding), max(binding)) if binding else (),
    )


def report_table(summaries: Mapping[str, Summary], reference: ReferenceEnergies) -> Table:
    """One column per set: frames, atoms, species, labels, forces, binding energies; E0 as caption."""
    table = Table(title="Reference data", title_justify="left", box=SIMPLE)
    table.add_column("")
    for name in summaries:
        table.add_column(name, justify="right")

    def row(title: str, cell) -> None:
        table.add_row(title, *(cell(summary) for summary in summaries.values()))

    row("frames", lambda s: f"{s.frames:,}")
    row("atoms", lambda s: f"{s.atoms:,}")
    row("species", lambda s: ", ".join(f"{symbol} {count:,}" for symbol, count in s.species.items()))
    for label in keys.LABELS:
        found = sorted({key for s in summaries.values() if label in s.labels for key in s.labels[label][1]})
        if found:
            row(f"{label} ({', '.join(found)})", lambda s, label=label: _coverage(s, label))
        else:
            row(f"{label}", lambda s: "none")
    row("|F| min / median / max, eV/Å", lambda s: " / ".join(f"{value:.3g}" for value in s.forces))
    row("E - ΣE0 per atom, mean, eV", lambda s: "".join(f"{value:.4f}" for value in s.binding[:1]))
    row("E - ΣE0 per atom, range, eV", lambda s: " … ".join(f"{value:.4f}" for value in s.binding[1:]))
    table.caption = f"E0 ({reference.source}), eV: " + ", ".join(
        f"{symbol} {value:.6f}" for symbol, value in reference.values.items()
    )
    table.caption_justify = "left"
    return table


def _coverage(summary: Summary, label: str) -> str:
    count = summary.labels[label][0] if label in summary.labels else 0
    return "all frames" if count == summary.frames else f"{count:,} of {summary.frames:,} frames"


def plausibility_warnings(summaries: Mapping[str, Summary], reference: ReferenceEnergies) -> list[str]:
    """Sentences about data that can be read but hardly be right."""
    sentences = []
    for name, summary in summaries.items():
        if summary.binding and max(abs(value) for value in summary.binding[1:]) > MAX_BINDING:
            largest = max(summary.binding[1:], key=abs)
            sentences.append(
                f"A frame of the {name} set has E - ΣE0 = {largest:.2f} eV per atom, more than any binding "
                "energy: " + _MISFIT[reference.source == LEAST_SQUARES]
            )
        if summary.forces and summary.forces[2] == 0:
            sentences.append(f"All forces of the {name} set are exactly zero.")
    return sentences
