"""Shared helpers: the water box, and extended XYZ text with fixed digits."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

AVOGADRO = 6.02214076e23
WATER_G_PER_MOL = 18.01528


def box_length(n_molecules: int, density: float) -> float:
    """Edge in Å of the cubic box that gives `density` in g/cm3, rounded as it will be stored."""
    volume_cm3 = n_molecules * WATER_G_PER_MOL / AVOGADRO / density
    return round((volume_cm3 * 1e24) ** (1.0 / 3.0), 6)


def whole_molecules(positions: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Put each O in the cell and its two H next to it. Atoms are ordered O H H O H H ..."""
    fractional = np.linalg.solve(cell.T, positions.T).T.reshape(-1, 3, 3)
    oxygen = fractional[:, :1] - np.floor(fractional[:, :1])
    bonds = fractional[:, 1:] - fractional[:, :1]
    bonds -= np.round(bonds)
    return np.concatenate([oxygen, oxygen + bonds], axis=1).reshape(-1, 3) @ cell


def oh_lengths(positions: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """All intramolecular O-H lengths in Å, for the atom order O H H O H H ..."""
    molecules = whole_molecules(positions, cell).reshape(-1, 3, 3)
    return np.linalg.norm(molecules[:, 1:] - molecules[:, :1], axis=-1).ravel()


def format_frame(
    symbols: list[str],
    positions: np.ndarray,
    cell: np.ndarray | None,
    info: Mapping[str, object],
    forces: np.ndarray | None = None,
    charges: np.ndarray | None = None,
) -> str:
    """One extended XYZ frame. Digits: positions 1e-6 Å, forces 1e-6 eV/Å, charges 1e-5 e."""
    columns, properties = [positions], "species:S:1:pos:R:3"
    formats = ["%.6f"] * 3
    if forces is not None:
        columns.append(forces)
        properties += ":REF_forces:R:3"
        formats += ["%.6f"] * 3
    if charges is not None:
        columns.append(charges[:, None])
        properties += ":REF_charges:R:1"
        formats += ["%.5f"]
    header = []
    if cell is not None:
        header.append('Lattice="' + " ".join(f"{x:.6f}" for x in np.ravel(cell)) + '"')
    header.append(f"Properties={properties}")
    header += [f"{key}={_format_value(key, value)}" for key, value in info.items()]
    header.append('pbc="T T T"' if cell is not None else 'pbc="F F F"')
    table = np.concatenate(columns, axis=1)
    line = " ".join(["%s", *formats])
    rows = [line % (symbol, *row) for symbol, row in zip(symbols, table, strict=True)]
    return "\n".join([str(len(symbols)), " ".join(header), *rows]) + "\n"


def _format_value(key: str, value: object) -> str:
    digits = ".8f" if key.startswith("REF_") else "g"
    if isinstance(value, (list, tuple, np.ndarray)):
        return '"' + " ".join(format(x, digits) for x in np.ravel(value)) + '"'
    return format(value, digits) if isinstance(value, (float, np.floating)) else str(value)


def iter_blocks(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (frame_id, text) of every complete frame; a half-written last frame is left out."""
    with path.open(encoding="utf-8") as handle:
        while count := handle.readline():
            lines = [count] + [handle.readline() for _ in range(int(count) + 1)]
            found = re.search(r"\bframe_id=(\S+)", lines[1])
            if found is None or not lines[-1].endswith("\n"):
                return
            yield found.group(1), "".join(lines)


def keep_complete(path: Path) -> set[str]:
    """Drop a half-written last frame left by an interruption; return the ids that are there."""
    if not path.exists():
        return set()
    blocks = list(iter_blocks(path))
    text = "".join(block for _, block in blocks)
    if len(text.encode()) != path.stat().st_size:
        scratch = path.with_name(path.name + ".part")
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(path)
    return {frame_id for frame_id, _ in blocks}


def append_frame(path: Path, text: str) -> None:
    """Append one frame and force it to disk, so an interruption costs one frame at most."""
    with path.open("a", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
