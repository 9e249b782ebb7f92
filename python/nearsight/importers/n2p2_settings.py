"""The settings file input.nn of n2p2: keywords, symmetry functions in n2p2's order, topology.

Names, arguments and their meaning are those of n2p2's manual (version 2.x).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nearsight.errors import ConfigError
from nearsight.export.elements import atomic_number

_CUTOFF_FUNCTIONS = ("hard", "cos", "tanh3", "tanh3_normalized", "exp", "poly1", "poly2", "poly3", "poly4")
_ACTIVATIONS = {
    "l": "linear",
    "t": "tanh",
    "s": "logistic",
    "S": "reversed_logistic",
    "p": "softplus",
    "r": "relu",
    "g": "gaussian",
    "c": "cos",
    "e": "exp_negative",
    "h": "square",
}
_SCALING = ("scale_symmetry_functions", "center_symmetry_functions", "scale_symmetry_functions_sigma")
_NORMALIZATION = ("mean_energy", "conv_energy", "conv_length")
_SEVERAL = ("symfunction_short", "atom_energy", "element_nodes_short")  # keywords that may be repeated
_USED = (
    *_SEVERAL,
    *_SCALING,
    *_NORMALIZATION,
    "number_of_elements",
    "elements",
    "nnp_type",
    "cutoff_type",
    "scale_min_short",
    "scale_max_short",
    "global_hidden_layers_short",
    "global_nodes_short",
    "global_activation_short",
    "normalize_nodes",
)
# They change energies in the programs that know them (n2p2's 4G branch, RuNNer) and have no counterpart here.
_REFUSED = (
    "use_electrostatics",
    "use_vdw",
    "use_charge_constraint",
    "global_symfunction_short",
    "element_symfunction_short",
    "element_hidden_layers_short",
    "element_activation_short",
    "cutoff_alpha",
    "nn_type_short",
    "nnp_gen",
    "nnp_generation",
    "screen_electrostatics",
    "initial_hardness",
    "fixed_gausswidth",
)
_HARMLESS_VALUES = {"nn_type_short": ("1",), "nnp_gen": ("2",), "nnp_generation": ("2",)}
_TRAINING = re.compile(
    r"random_seed|epochs|updater_type|(test|energy|force|charge|short_energy|short_force)_fraction|main_error_metric"
    r"|(jacobian|parallel)_mode|(selection_mode|update_strategy|task_batch_size|rmse_threshold|gradient|kalman)\w*"
    r"|short_(energy|force)_error_threshold|(weights|write|memorize|nguyen_widrow|precondition|repeated)_\w+"
    r"|use_(short_forces|old_weights_\w+)|force_weight"
)


@dataclass(frozen=True)
class Network:
    """Widths of the hidden layers of an element, and the names of their activation functions."""

    hidden: list[int]
    activations: list[str]


@dataclass(frozen=True)
class Settings:
    """What input.nn says about the potential, in its own units."""

    elements: list[str]  # by atomic number, as n2p2 sorts them
    functions: dict[str, list[dict[str, Any]]]  # records of docs/file_format.md, in the order of the weights
    cutoff_function: str
    inner_fraction: float
    networks: dict[str, Network]
    normalize_nodes: bool
    scaling: frozenset[str]  # which of the three keywords are present
    scaling_range: tuple[float, float]
    mean_energy: float
    conv_energy: float
    atom_energies: dict[str, float]
    notes: list[str]


class _Lines:
    """The keywords of a file, with line numbers for messages."""

    def __init__(self, path: Path):
        self.path = path
        self.lines: dict[str, list[tuple[int, list[str]]]] = {}
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            words = line.partition("#")[0].partition("!")[0].split()
            if words:
                self.lines.setdefault(words[0], []).append((number, words[1:]))

    def __contains__(self, keyword: str) -> bool:
        return keyword in self.lines

    def error(self, number: int, text: str) -> ConfigError:
        return ConfigError(f"{self.path}, line {number}: {text}")

    def every(self, keyword: str) -> list[tuple[int, list[str]]]:
        return self.lines.get(keyword, [])

    def words(self, keyword: str) -> list[str]:
        if keyword not in self.lines:
            raise ConfigError(f"{self.path} lacks the keyword {keyword}")
        entries = self.lines[keyword]
        if len(entries) > 1:
            raise self.error(entries[1][0], f"the keyword {keyword} appears a second time")
        return entries[0][1]

    def number(self, keyword: str, default: float) -> float:
        return self.convert(keyword, float) if keyword in self else default

    def convert(self, keyword: str, kind: type) -> Any:
        words = self.words(keyword)
        try:
            return kind(words[0])
        except (IndexError, ValueError):
            raise self.error(
                self.lines[keyword][0][0], f"{keyword} needs a number, found {' '.join(words) or 'nothing'}"
            ) from None


def read_settings(path: Path) -> Settings:
    """Read input.nn.

    Raises:
        ConfigError: the file is missing or wrong, or asks for what nearsight cannot do.
    """
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; expected a folder with n2p2's input.nn")
    lines = _Lines(path)
    _refuse(lines)
    elements = _elements(lines)
    words = lines.words("cutoff_type")
    try:
        cutoff_function = _CUTOFF_FUNCTIONS[int(words[0])]
        inner = float(words[1]) if len(words) > 1 else 0.0
        if not 0.0 <= inner < 1.0:
            raise ValueError
    except (IndexError, ValueError):
        raise ConfigError(
            f"{path}: cutoff_type must be 0 to 8 and an inner fraction below 1, found {' '.join(words)}"
        ) from None
    present = [keyword for keyword in _NORMALIZATION if keyword in lines]
    if present and len(present) < len(_NORMALIZATION):
        raise ConfigError(f"{path} has {', '.join(present)}; expected all or none of {_NORMALIZATION}")
    unknown = sorted(k for k in set(lines.lines) - {*_USED, *_REFUSED} if not _TRAINING.fullmatch(k))
    networks, notes = _networks(lines, elements)
    return Settings(
        elements=elements,
        functions=_functions(lines, elements),
        cutoff_function=cutoff_function,
        inner_fraction=0.0 if cutoff_function.startswith(("tanh3", "hard")) else inner,
        networks=networks,
        normalize_nodes="normalize_nodes" in lines,
        scaling=frozenset(keyword for keyword in _SCALING if keyword in lines),
        scaling_range=(lines.number("scale_min_short", 0.0), lines.number("scale_max_short", 1.0)),
        mean_energy=lines.number("mean_energy", 0.0),
        conv_energy=lines.number("conv_energy", 1.0),
        atom_energies=_atom_energies(lines, elements),
        notes=notes
        + ([f"keywords that n2p2 does not know, ignored: {', '.join(unknown)}"] if unknown else []),
    )


def _refuse(lines: _Lines) -> None:
    found = [
        keyword
        for keyword in _REFUSED
        if keyword in lines
        and tuple(lines.every(keyword)[0][1][:1]) != _HARMLESS_VALUES.get(keyword, ("none",))
    ]
    kind = lines.words("nnp_type")[:1] if "nnp_type" in lines else []
    if kind not in ([], ["0"], ["2"], ["2G-HDNNP"]):
        found.append(f"nnp_type {' '.join(kind)}")
    if found:
        raise ConfigError(
            f"{lines.path}: these keywords change the energy and cannot be imported: {', '.join(found)}; "
            "expected a short-range potential (2G-HDNNP)"
        )


def _elements(lines: _Lines) -> list[str]:
    elements = sorted(lines.words("elements"), key=atomic_number)
    if lines.convert("number_of_elements", int) != len(elements):
        raise ConfigError(
            f"{lines.path}: number_of_elements is {lines.words('number_of_elements')[0]}, "
            f"but elements names {len(elements)}: {' '.join(elements)}"
        )
    return elements


def _atom_energies(lines: _Lines, elements: list[str]) -> dict[str, float]:
    energies = dict.fromkeys(elements, 0.0)
    for number, words in lines.every("atom_energy"):
        try:
            symbol, energy = words[0], float(words[1])
        except (IndexError, ValueError):
            raise lines.error(number, f"atom_energy needs an element and a number: {words}") from None
        if symbol in energies:
            energies[symbol] = energy
    return energies


def _networks(lines: _Lines, elements: list[str]) -> tuple[dict[str, Network], list[str]]:
    try:
        depth = lines.convert("global_hidden_layers_short", int)
        nodes = [int(word) for word in lines.words("global_nodes_short")[:depth]]
        letters = lines.words("global_activation_short")
        activations = [_ACTIVATIONS[letter] for letter in letters[:depth]]
    except (KeyError, ValueError) as error:
        raise ConfigError(f"{lines.path}: the network cannot be read, {error} is not understood") from None
    if len(nodes) != depth or len(activations) != depth:
        raise ConfigError(
            f"{lines.path}: {depth} hidden layers need as many nodes and activation functions, found "
            f"{len(nodes)} and {len(activations)}"
        )
    notes = []
    if letters[depth:] not in ([], ["l"]):
        notes.append(f"the output layer is linear, as n2p2 takes it, and not {' '.join(letters[depth:])}")
    hidden = {symbol: list(nodes) for symbol in elements}
    for number, words in lines.every("element_nodes_short"):
        try:
            symbol, layer, count = words[0], int(words[1]), int(words[2])
            hidden[symbol][range(depth)[layer - 1]] = count
        except (KeyError, IndexError, ValueError):
            raise lines.error(
                number, f"element_nodes_short needs an element, a hidden layer and nodes: {words}"
            ) from None
    return {symbol: Network(hidden[symbol], activations) for symbol in elements}, notes


# ---- symmetry functions


def _functions(lines: _Lines, elements: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Return the records of every element, sorted as n2p2 sorts them: so are weights and scaling data."""
    found: dict[str, list[tuple[tuple[Any, ...], dict[str, Any]]]] = {symbol: [] for symbol in elements}
    for number, words in lines.every("symfunction_short"):
        try:
            center, kind = words[0], int(words[1])
            entry = _Reader(words[2:], elements).read(kind)
            found[center].append(entry)
        except KeyError as error:
            raise lines.error(number, f"{error} is not one of the elements {' '.join(elements)}") from None
        except (IndexError, ValueError) as error:
            raise lines.error(number, f"this symmetry function is not understood ({error})") from None
    without = [symbol for symbol, functions in found.items() if not functions]
    if without:
        raise ConfigError(f"{lines.path} has no symmetry functions for {', '.join(without)}")
    return {symbol: [f for _, f in sorted(entries, key=lambda e: e[0])] for symbol, entries in found.items()}


class _Reader:
    """The arguments of one symmetry function, after the central element and the type."""

    def __init__(self, words: list[str], elements: list[str]):
        self.words = list(words)
        self.elements = elements
        self.atomic_numbers = [float(atomic_number(symbol)) for symbol in elements]

    def neighbors(self, count: int) -> list[int]:
        number = {symbol: k for k, symbol in enumerate(self.elements)}
        return sorted(number[self.word()] for _ in range(count))

    def number(self) -> float:
        return float(self.word())

    def word(self) -> str:
        if not self.words:
            raise ValueError("it ends too soon")
        return self.words.pop(0)

    def read(self, kind: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the sort key within an element, and the record."""
        if kind in (2, 12):
            return self._radial(kind)
        if kind in (3, 9, 13):
            return self._angular(kind)
        if kind in (20, 23):
            return self._compact_radial(kind)
        if kind in (21, 22, 24, 25):
            return self._compact_angular(kind)
        raise ValueError(f"type {kind}, expected 2, 3, 9, 12, 13 or 20 to 25")

    def _species(self, neighbors: list[int]) -> dict[str, Any]:
        if neighbors:
            return {"neighbors": [self.elements[k] for k in neighbors]}
        return {"neighbors": self.elements, "weights": self.atomic_numbers}

    def _radial(self, kind: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        e = self.neighbors(1 if kind == 2 else 0)
        eta, shift, cutoff = self.number(), self.number(), self.number()
        record = {"kind": "radial", **self._species(e), "eta": eta, "r_shift": shift, "cutoff": cutoff}
        return (kind, cutoff, eta, shift, *e), record

    def _angular(self, kind: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if kind == 13:
            e: list[int] = []
            eta, shift, sign, zeta, cutoff = (self.number() for _ in range(5))
        else:
            e = self.neighbors(2)
            eta, sign, zeta, cutoff = (self.number() for _ in range(4))
            shift = self.number() if self.words else 0.0
        name = "angular_wide" if kind == 9 else "angular_narrow"
        record = {"kind": name, **self._species(e), "eta": eta, "r_shift": shift, "cutoff": cutoff}
        return (kind, cutoff, eta, shift, zeta, sign, *e), {**record, "lambda": sign, "zeta": zeta}

    def _compact(self) -> tuple[str, dict[str, Any]]:
        subtype = self.word()
        core = {"e": "exp"}.get(subtype[:1], f"poly{subtype[1:2]}")
        if subtype[0] not in "ep" or subtype[2:] not in ("", "a") or (core == "exp" and subtype != "e"):
            raise ValueError(f"subtype {subtype}")
        return subtype, {"core": core, "asymmetric": subtype.endswith("a")}

    def _compact_radial(self, kind: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        e = self.neighbors(1 if kind == 20 else 0)
        inner, cutoff = self.number(), self.number()
        subtype, core = self._compact()
        record = {"kind": "compact_radial", **self._species(e), "inner": inner, "cutoff": cutoff, **core}
        return (kind, subtype, *e, cutoff, inner), record

    def _compact_angular(self, kind: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        e = self.neighbors(2 if kind < 23 else 0)
        inner, cutoff, left, right = (self.number() for _ in range(4))
        subtype, core = self._compact()
        name = "compact_narrow" if kind in (21, 24) else "compact_wide"
        record = {"kind": name, **self._species(e), "inner": inner, "cutoff": cutoff, **core}
        return (kind, subtype, *e, cutoff, inner, left, right), {**record, "angle": [left, right]}
