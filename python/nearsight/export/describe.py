"""The table that `nearsight info` prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.table import Table

from nearsight.export.ranges import TrainingRanges


def describe(metadata: dict[str, Any], ranges: Sequence[TrainingRanges] = ()) -> Table:
    """Return the metadata of a model file and its training ranges as a table for the console."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in _rows(metadata):
        table.add_row(name, value)
    if ranges:
        table.add_row("training ranges", "\n".join(map(str, ranges)))
    return table


def _rows(metadata: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "architecture", metadata["architecture"]
    yield "backends", "native, torchscript" if metadata["native"] else "torchscript"
    yield "species", " ".join(metadata["species"])
    yield "cutoff", f"{metadata['cutoff']:g} Å × {metadata['num_interactions']} interaction layer(s)"
    yield "readouts", ", ".join(f"{r['name']} ({r['columns']})" for r in metadata["readouts"])
    yield "couple", _couple(metadata["couple"], metadata["species"])
    if "dispersion" in metadata:
        yield "dispersion", _dispersion(metadata["dispersion"])
    energies = ", ".join(
        f"{symbol} {value:.6f} eV" for symbol, value in metadata["reference_energies"].items()
    )
    yield "reference energies", f"{energies} ({metadata['reference_energies_source']})"
    for name, value in metadata["hyperparameters"].items():
        yield name, _DESCRIPTIONS.get(name, str)(value)
    yield "units", _flat(metadata["units"])
    yield "dtype", metadata["dtype"]
    for name, value in metadata["provenance"].items():
        yield f"provenance: {name}", _flat(value) if isinstance(value, dict) else str(value)
    yield "versions", _flat(metadata["versions"])
    yield "format version", str(metadata["format_version"])


def _flat(record: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in record.items())


def _couple(record: dict[str, Any], species: Sequence[str]) -> str:
    """Return the record with numbers of species beside their symbols."""

    def named(value: Any) -> Any:
        if not isinstance(value, list):
            return "none" if value is None else value
        return " ".join(f"{symbol} {number:g}" for symbol, number in zip(species, value))

    return _flat({key: named(value) for key, value in record.items()})


def _dispersion(record: dict[str, Any]) -> str:
    """Return who adds it, and its settings without the tables."""
    adds = {
        "model": "in the energy of this model",
        "host": "not in this model: the host must add it (docs/dispersion.md)",
    }[record["added_by"]]
    numbers = _flat({name: f"{record[name]:g}" for name in ("s6", "s8", "a1", "a2")})
    cutoffs = f"cutoff {record['cutoff']:g} Å, of coordination numbers {record['coordination_cutoff']:g} Å"
    return (
        f"D3(BJ) of {record['functional']}, {adds}; labels {record['labels']} it; {numbers}; {cutoffs}, "
        f"smooth over {record['smoothing']:g} Å"
    )


def _descriptor(record: dict[str, Any]) -> str:
    """Return the kind, the parameters, and for lists per species how many entries of each kind they have."""
    parts = [str(record.get("kind", "?"))]
    for name, value in record.items():
        if name == "symmetry_functions":
            parts += [f"{symbol}: {len(records)} ({_kinds(records)})" for symbol, records in value.items()]
        elif name != "kind":
            parts.append(f"{name} {value}")
    return "; ".join(parts)


def _kinds(records: list[dict[str, Any]]) -> str:
    kinds = [record["kind"] for record in records]
    return ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))


def _networks(record: dict[str, dict[str, list]]) -> str:
    """Return the widths and activations of every species, as 25-25 (tanh, tanh, linear)."""
    return "; ".join(
        f"{symbol}: {'-'.join(map(str, shape['hidden'])) or 'linear'} ({', '.join(shape['activation'])})"
        for symbol, shape in record.items()
    )


def _layers(records: Sequence[dict[str, Any]]) -> str:
    """Return the irreps of input, messages and output of every layer, as 0e -> 0e+1o -> 0e."""
    return "; ".join(
        f"{' -> '.join('+'.join(layer[part]) for part in ('input', 'message', 'output'))}, "
        f"{len(layer['paths'])} paths, correlation {layer['correlation']}"
        for layer in records
    )


_DESCRIPTIONS = {"descriptor": _descriptor, "networks": _networks, "layers": _layers}
