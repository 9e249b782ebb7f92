"""The data of a run: read, divided, checked, with reference energies, as the configuration says."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nearsight.data import (
    Frame,
    ReferenceEnergies,
    is_isolated_atom,
    read_frames,
    reference_energies,
    split_frames,
)
from nearsight.data.reference_energies import ISOLATED_ATOMS
from nearsight.errors import DataError
from nearsight.models import DispersionConfig
from nearsight.training.batches import species_numbers
from nearsight.training.config import DataConfig, IndexFile, LossConfig
from nearsight.training.labels import without_dispersion
from nearsight.training.loss import check_targets

SETS = ("training", "validation", "test")


@dataclass(frozen=True)
class Sets:
    """Frames of the training, validation and test set.

    Attributes:
        frames: set → frames.
        numbers: set → their numbers in the files of `sources`.
        sources: set → files.
        species: of the training set, by atomic number.
        reference: reference energies, made from the training set.
        hashes: file → SHA-256 of its content.
        notes: sentences for the user about what was done.
    """

    frames: dict[str, list[Frame]]
    numbers: dict[str, list[int]]
    sources: dict[str, list[str]]
    species: list[str]
    reference: ReferenceEnergies
    hashes: dict[str, str]
    notes: list[str]


def read_sets(config: DataConfig, loss: LossConfig, dispersion: DispersionConfig | None = None) -> Sets:
    """Read the files of a configuration and divide them; dispersion that labels contain is taken out of them.

    Raises:
        DataError: unreadable or absurd data, an impossible split, a weighted target without labels, a species
            or a weighted config_type that the training set does not have.
        ConfigError: no tables for the dispersion.
    """
    label_keys = config.keys.model_dump()

    def read(files: str | list[str]) -> list[Frame]:
        frames = read_frames(files, label_keys, config.max_force, config.runner_units.model_dump())
        contained = dispersion is not None and dispersion.labels == "with"
        return without_dispersion(frames, dispersion) if contained else frames

    pool = read(config.training)
    isolated = _isolated_atoms(pool, config.reference_energies)
    other = {
        name: getattr(config, name) for name in SETS[1:] if isinstance(getattr(config, name), (str, list))
    }
    parts = {name: 0 if name in other else _part(getattr(config, name)) for name in SETS[1:]}
    split = split_frames(
        len(pool), **parts, training=_part(config.training_size), seed=config.split_seed, excluded=isolated
    )
    frames = {name: [pool[number] for number in getattr(split, name)] for name in SETS}
    numbers = {name: list(getattr(split, name)) for name in SETS}
    for name, files in other.items():
        frames[name] = read(files)
        numbers[name] = list(range(len(frames[name])))
    if not frames["validation"]:
        raise DataError("The validation set is empty; give data.validation as a fraction, a count or files.")
    check_targets(loss, config.keys, frames)
    _check_weights(config.weights, frames["training"])

    species = sorted({symbol for frame in frames["training"] for symbol in frame.symbols}, key=_atomic_number)
    for frame in [*frames["validation"], *frames["test"]]:
        species_numbers(frame, species)
    references = [*frames["training"], *(pool[number] for number in isolated)]
    reference = reference_energies(references, species, config.reference_energies)
    sources = {name: _as_list(other.get(name, config.training)) for name in SETS}
    files = dict.fromkeys(file for name in SETS for file in sources[name])
    notes = (
        [f"{len(isolated)} isolated atoms give the reference energies and are in no set."] if isolated else []
    )
    if dispersion is not None and dispersion.labels == "with":
        notes.append(f"D3(BJ) of {dispersion.functional} was taken out of the labels.")
    return Sets(frames, numbers, sources, species, reference, {f: _sha256(f) for f in files}, notes)


def frame_weight(frame: Frame, weights: Mapping[str, float]) -> float:
    """What the loss of a frame is multiplied by: the weight of its `config_type`, 1 where none is given."""
    return weights.get(str(frame.info.get("config_type")), 1.0)


def _check_weights(weights: Mapping[str, float], frames: Sequence[Frame]) -> None:
    present = {str(frame.info["config_type"]) for frame in frames if "config_type" in frame.info}
    for name in weights:
        if name not in present:
            found = ", ".join(sorted(present)) or "none"
            raise DataError(
                f"data.weights names {name!r}, but no frame of the training set has it as its config_type "
                f"(found: {found}); leave it out."
            )


def _isolated_atoms(pool: list[Frame], choice: str | dict[str, float]) -> list[int]:
    """Numbers of the isolated atoms, if they are to give the reference energies (with `auto` only where every
    species has one): they teach a local model nothing and stay out of all sets.
    """
    numbers = [number for number, frame in enumerate(pool) if is_isolated_atom(frame)]
    if len(numbers) == len(pool):
        raise DataError("The training files hold nothing but isolated atoms.")
    missing = {s for frame in pool for s in frame.symbols} - {pool[number].symbols[0] for number in numbers}
    return numbers if choice == ISOLATED_ATOMS or (choice == "auto" and not missing) else []


def _part(value: float | int | IndexFile | None) -> float | int | Path | None:
    return Path(value.indices) if isinstance(value, IndexFile) else value


def _as_list(files: str | list[str]) -> list[str]:
    return [files] if isinstance(files, str) else list(files)


def _atomic_number(symbol: str) -> int:
    from ase.data import atomic_numbers

    return atomic_numbers[symbol]


def _sha256(path: str) -> str:
    """Of a file's content, or of the names and contents of a folder's files."""
    digest = hashlib.sha256()
    folder = Path(path) if Path(path).is_dir() else None
    for file in sorted(folder.rglob("*")) if folder else [Path(path)]:
        if not file.is_file():
            continue
        if folder:
            digest.update(file.relative_to(folder).as_posix().encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def named(sets: Sets) -> dict[str, Sequence[Frame]]:
    """The sets that are not empty."""
    return {name: sets.frames[name] for name in SETS if sets.frames[name]}
