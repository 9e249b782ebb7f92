"""The files of the public ANI model zoo, in NeuroChem's format.

A model is an `.info` file that names, relative to itself, the constants (`.params`), the self energies, the
beginning of the members' folders and their number. A folder holds `networks/ANN-X.nnf` for every element X,
a text (most often compressed) that names the float32 files of weights and biases. Constants and self
energies, but not the cutoffs, are rounded to single precision, as torchani does.
"""

from __future__ import annotations

import bz2
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from nearsight.errors import ConfigError
from nearsight.importers.ani import Ensemble, Network
from nearsight.importers.imported import Imported
from nearsight.models.ani import AngularGrid, RadialGrid

_ACTIVATIONS = {6: "linear", 9: "celu"}
# Settings that do not appear in the formulas of the papers, and the one value that the model zoo has.
_FIXED = {"DESC": "ANI_NORMAL", "TM": "1", "CG": "0", "RP": "0", "AC": "0"}
_CONSTANTS = ("Rcr", "Rca", "EtaR", "ShfR", "Zeta", "ShfZ", "EtaA", "ShfA", "Atyp")


def import_ani(path: str | Path, members: Sequence[int] | None = None) -> Imported:
    """Read a model of the zoo.

    Args:
        path: the `.info` file, or the folder that holds it.
        members: which members of the ensemble, from 0; all of them by default.

    Raises:
        ConfigError: a file is missing or damaged, or asks for what nearsight cannot do.
    """
    info = _find_info(Path(path))
    lines = [line.strip() for line in _text(info).splitlines() if line.strip()]
    if len(lines) != 4 or not lines[3].isdecimal():
        raise ConfigError(
            f"{info} must have four lines: constants, self energies, start of the members' folders and their "
            f"number; found {len(lines)}: {' | '.join(lines)[:100]}"
        )
    constants = _read_constants(info.parent / lines[0])
    species = constants["Atyp"]
    chosen = _chosen(info, int(lines[3]), members)
    folders = [info.parent / f"{lines[2]}{member}" / "networks" for member in chosen]
    return Ensemble(
        species=species,
        radial=constants["radial"],
        angular=constants["angular"],
        cutoff_function="cos",
        self_energies=_read_self_energies(info.parent / lines[1], species),
        members=[{s: read_network(folder / f"ANN-{s}.nnf") for s in species} for folder in folders],
        provenance={"imported_from": "ANI", "file": info.name, "members": chosen},
    ).imported()


def _find_info(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = sorted(path.glob("*.info"))
    if len(found) != 1:
        raise ConfigError(
            f"{path} has {len(found)} files *.info, expected one that describes the model: name it"
        )
    return found[0]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not a text file: {error}") from None
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; it is part of the ANI model") from None


def _chosen(info: Path, count: int, members: Sequence[int] | None) -> list[int]:
    chosen = list(range(count)) if members is None else list(members)
    if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(range(count)):
        raise ConfigError(
            f"{info} has {count} members; expected different numbers from 0 to {count - 1}, found {chosen}"
        )
    return chosen


def _single(word: str) -> float:
    return float(np.float32(word))


def _read_constants(path: Path) -> dict:
    values = {}
    for line in _text(path).splitlines():
        name, equals, value = (part.strip() for part in line.partition("="))
        if equals:
            values[name] = value
    for name, value in values.items():
        if name not in _CONSTANTS and value != _FIXED.get(name):
            raise ConfigError(
                f"{path}: {name} = {value} is not known; expected the constants {', '.join(_CONSTANTS)} and "
                f"{', '.join(f'{k} = {v}' for k, v in _FIXED.items())}"
            )
    missing = [name for name in _CONSTANTS if name not in values]
    if missing:
        raise ConfigError(f"{path} lacks {', '.join(missing)}")

    def numbers(name: str, kind: Callable[[str], float] = _single) -> tuple[float, ...]:
        try:
            return tuple(kind(word) for word in values[name].strip("[]").split(","))
        except ValueError:
            raise ConfigError(f"{path}: {name} must be numbers, found {values[name]}") from None

    def number(name: str, kind: Callable[[str], float] = _single) -> float:
        if len(numbers(name)) != 1:
            raise ConfigError(f"{path}: {name} must be one number, found {values[name]}")
        return numbers(name, kind)[0]

    return {
        "Atyp": [symbol.strip() for symbol in values["Atyp"].strip("[]").split(",")],
        "radial": RadialGrid(number("Rcr", float), number("EtaR"), numbers("ShfR")),
        "angular": AngularGrid(
            number("Rca", float), number("EtaA"), number("Zeta"), numbers("ShfA"), numbers("ShfZ")
        ),
    }


def _read_self_energies(path: Path, species: list[str]) -> dict[str, float]:
    """Lines such as H,0=-0.5978."""
    found = re.findall(r"^\s*([A-Z][a-z]?)\s*,\s*\d+\s*=\s*(\S+)\s*$", _text(path), re.MULTILINE)
    try:
        energies = {symbol: _single(value) for symbol, value in found}
    except ValueError as error:
        raise ConfigError(f"{path}: a self energy is not a number ({error})") from None
    missing = [symbol for symbol in species if symbol not in energies]
    if missing:
        raise ConfigError(f"{path} has no self energy of {', '.join(missing)}; expected lines as H,0=-0.5978")
    return energies


def read_network(path: Path) -> Network:
    """Read an `.nnf` file and the weights and biases that it names, which lie beside it.

    Raises:
        ConfigError: a file is missing or damaged, or the network has what nearsight does not know.
    """
    text = re.sub(r"!.*", "", _network_text(path))
    weights, biases, activations = [], [], []
    for number, section in enumerate(re.split(r"\blayer\s*\[", text)[1:], 1):
        entries = dict(re.findall(r"(\w+)\s*=\s*([^;]*?)\s*;", section))
        layer = f"{path}, layer {number}"
        inputs, outputs = _whole(layer, entries, "blocksize"), _whole(layer, entries, "nodes")
        activation = _whole(layer, entries, "activation")
        if activation not in _ACTIVATIONS:
            known = " and ".join(f"{k} ({name})" for k, name in _ACTIVATIONS.items())
            raise ConfigError(f"{layer}: activation {activation} is not known, expected {known}")
        for name in ("type", "btchnorm"):
            if name in entries and _whole(layer, entries, name) != 0:
                raise ConfigError(f"{layer}: {name} is {entries[name]}, expected 0")
        weights.append(
            _parameters(path, layer, entries, "weights", outputs * inputs).reshape(outputs, inputs)
        )
        biases.append(_parameters(path, layer, entries, "biases", outputs))
        activations.append(_ACTIVATIONS[activation])
    if not weights:
        raise ConfigError(f"{path} has no layers: it is damaged, or not a network in NeuroChem's format")
    return Network(weights, biases, tuple(activations))


def _network_text(path: Path) -> str:
    """The text, which may be compressed by bzip2 behind a line with its length."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(
            f"{path} does not exist; every element of the ANI model needs its network"
        ) from None
    packed = re.match(rb"\s*\d+\s*=\s*(?=BZh)", data)
    try:
        if packed:
            data = bz2.decompress(data[packed.end() :])
        return data.decode("ascii")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is damaged ({error}): copy it again") from None


def _whole(layer: str, entries: dict[str, str], name: str) -> int:
    value = entries.get(name, "nothing")
    if not value.isdecimal():
        raise ConfigError(f"{layer}: {name} must be a whole number, found {value}")
    return int(value)


def _parameters(path: Path, layer: str, entries: dict[str, str], name: str, count: int) -> np.ndarray:
    """Return the float32 numbers of weights=FILE:name[count], in double."""
    value = entries.get(name, "nothing")
    named = re.fullmatch(r"FILE:([\w.+-]+)\[(\d+)\]", value)
    if not named:
        raise ConfigError(f"{layer}: {name} must have the form FILE:name[count], found {value}")
    file = path.with_name(named[1])
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{file} does not exist; {layer} names it as its {name}") from None
    if int(named[2]) != count or len(data) != 4 * count:
        raise ConfigError(
            f"{layer}: expected {count} {name}, found {named[2]} in the text and {len(data) / 4:g} in "
            f"{file.name}"
        )
    numbers = np.frombuffer(data, dtype="<f4").astype(np.float64)
    if not np.isfinite(numbers).all():
        raise ConfigError(f"{file} has {name} that are not finite numbers: copy it again")
    return numbers
