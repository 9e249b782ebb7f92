"""From the numbers of a mace-torch model to the canonical form: all normalizations folded into weights.

mace-torch's components of irreps belong to axes that are permuted cyclically, which is a rotation: energies
do not change, so that couplings and polynomials are only compared up to a factor, not transformed. Its edges
point from the neighbor to the center, which gives the harmonics a factor (-1)^l.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nearsight.errors import ConfigError
from nearsight.models.couplings import coupling
from nearsight.models.irreps import Irrep, in_order, irrep, starts
from nearsight.models.mace_config import coupling_rows, layer_record
from nearsight.models.polynomials import symmetric_polynomials

Arrays = Mapping[str, np.ndarray]
# The part of mace-torch's polynomials that ours do not give is round-off, of single precision where they were
# made in it.
_RESIDUAL = {"float64": 1e-10, "float32": 1e-5}


@dataclass(frozen=True)
class Choice:
    """What is taken of a model: numbers of species and of the head among those it has."""

    species: list[int]
    head: int


def choose(record: Mapping[str, Any], species: Sequence[str] | None, head: str | None) -> Choice:
    """Return the numbers of the species and the head of these names; default: all species, the only head.

    Raises:
        ConfigError: the model has no such species or head, or several heads and none is chosen.
    """
    symbols = species_of(record)
    unknown = [symbol for symbol in species or [] if symbol not in symbols]
    if unknown:
        raise ConfigError(f"the model has no {', '.join(unknown)}; its species are {', '.join(symbols)}")
    heads = record["heads"]
    if head is None and len(heads) > 1:
        raise ConfigError(f"the model has the heads {', '.join(heads)}: choose one (--head)")
    if head is not None and head not in heads:
        raise ConfigError(f"the model has no head {head!r}, its heads are {', '.join(heads)}")
    wanted = symbols if species is None else species
    chosen = [number for number, symbol in enumerate(symbols) if symbol in wanted]
    return Choice(chosen, heads.index(head) if head else 0)


def species_of(record: Mapping[str, Any]) -> list[str]:
    """Return the chemical symbols of a model's species."""
    from ase.data import chemical_symbols

    return [chemical_symbols[number] for number in record["atomic_numbers"]]


def convert(
    record: Mapping[str, Any], arrays: Arrays, choice: Choice
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return hyperparameters and tensors of docs/file_format.md.

    Args:
        record, arrays: what `mace_extract` wrote.
        choice: species and head.

    Raises:
        ConfigError: the model has polynomials that ours cannot express.
    """
    chosen, head = choice.species, choice.head
    embedding = arrays["embedding"][chosen]
    weights = {
        "embedding": embedding @ arrays["layers.0.up.0e"],
        "scale": arrays["scale"][[head]],
        "shift": np.full(len(chosen), arrays["shift"][head]),
        **{
            f"radial.{name}": arrays[f"radial.{name}"]
            for name in ("frequencies", "centers")
            if f"radial.{name}" in arrays
        },
    }
    layers = []
    for t, source in enumerate(record["layers"]):
        last = t + 1 == len(record["layers"])
        layer = _Layer(source, _of_layer(arrays, t), record["l_max"], choice, last)
        tensors = layer.weights(_basis_gain(record, arrays), _RESIDUAL[record["dtype"]])
        tensors |= layer.from_features() if t else layer.from_embedding(embedding)
        weights |= {f"layers.{t}.{name}": values for name, values in tensors.items()}
        layers.append(layer.record)
    hyperparameters = {
        "channels": record["layers"][0]["channels"],
        "l_max": record["l_max"],
        "radial": _radial(record["radial"], arrays, chosen),
        "zbl": _zbl(record, arrays, choice),
        "layers": layers,
    }
    return hyperparameters, weights


def _radial(source: Mapping[str, Any], arrays: Arrays, chosen: list[int]) -> dict[str, Any]:
    basis = {"kind": source["basis"], "count": source["count"]}
    if source["basis"] == "gaussian":
        basis["width"] = source["width"]
    if source["basis"] == "chebyshev":
        basis |= {"shift": 0.0, "slope": 1.0}
    transform = source["transform"]
    if transform:
        transform = transform | {"radii": arrays["radial.radii"][chosen].tolist()}
    return {
        "basis": basis,
        "envelope": source["envelope"],
        "envelope_order": source["envelope_order"],
        "transform": transform,
    }


def _zbl(record: Mapping[str, Any], arrays: Arrays, choice: Choice) -> dict[str, Any] | None:
    if record["zbl"] is None:
        return None
    return record["zbl"] | {
        "numbers": [record["atomic_numbers"][kind] for kind in choice.species],
        "radii": arrays["zbl.radii"][choice.species].tolist(),
        "scale": float(arrays["scale"][choice.head]),
    }


def _basis_gain(record: Mapping[str, Any], arrays: Arrays) -> float:
    """Return mace-torch's factor of the basis, which may be rounded to single precision, over ours."""
    if "radial.prefactor" not in arrays:
        return 1.0
    return float(arrays["radial.prefactor"][0]) / math.sqrt(2.0 / record["cutoff"])


def _of_layer(arrays: Arrays, t: int) -> dict[str, np.ndarray]:
    """The arrays of a layer by their names in it, and the couplings."""
    prefix = f"layers.{t}."
    own = {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}
    return own | {name: values for name, values in arrays.items() if name.startswith("w3j.")}


class _Layer:
    """One interaction and its product."""

    def __init__(self, source: Mapping[str, Any], arrays: Arrays, l_max: int, choice: Choice, last: bool):
        self.source, self.arrays, self.choice = source, arrays, choice
        self.input = in_order(map(irrep, source["input"]))
        output = in_order(map(irrep, source["output"]))
        self.output = output[:1] if last else output  # nothing else is read from the last layer
        targets = in_order(map(irrep, source["message"]))
        record = layer_record(self.input, targets, self.output, l_max, source["correlation"])
        kind = "mlp" if "readout.1" in arrays else "linear"
        self.record = record | {"density": source["density"], "readout": kind}
        self.message = tuple(map(irrep, record["message"]))

    def weights(self, basis_gain: float, residual: float) -> dict[str, np.ndarray]:
        """Return the tensors that all layers have."""
        chosen, arrays = self.choice.species, self.arrays
        result = self.paths(basis_gain) | self.product(residual) | self.readout()
        result["couplings"] = coupling_rows(self.record["paths"])
        if not self.source["residual"]:
            result |= {f"select.{ir}": _turned(arrays[f"selector.{ir}"][chosen]) for ir in self.message}
        return result | {f"update.{ir}": arrays[f"update.{ir}"].T for ir in self.output}

    def from_embedding(self, embedding: np.ndarray) -> dict[str, np.ndarray]:
        """Return what the first layer has of the embedding [species, K]: a constant in place of a skip."""
        if not self.source["skip"]:
            return {}
        selector = self.arrays["selector.0e"][self.choice.species]
        return {"skip": np.einsum("zk,zkl->zl", embedding, selector)}

    def from_features(self) -> dict[str, np.ndarray]:
        """Return the maps of the features of other layers than the first: up and skip."""
        result = {f"up.{ir}": self.arrays[f"up.{ir}"].T for ir in self.input}
        if self.source["skip"]:
            matrices = {ir: self.arrays.get(f"selector.{ir}") for ir in self.output}
            result |= {
                f"skip.{ir}": _turned(matrix[self.choice.species])
                for ir, matrix in matrices.items()
                if matrix is not None
            }
        return result

    def paths(self, basis_gain: float) -> dict[str, np.ndarray]:
        """Return radial and density networks and `message`, with paths in our order."""
        source = [(one, l2, three) for one, l2, three, _ in self.source["paths"]]
        gains = [self.path_gain(*path) for path in self.source["paths"]]
        channels = self.source["channels"]
        place, row = {}, Counter()
        for n, path in enumerate(source):  # number of the path, and among those to the same irrep
            place[path] = n, row[path[2]]
            row[path[2]] += 1
        order = [place[tuple(path)] for path in self.record["paths"]]
        networks = {}
        for name in ("radial", "density"):
            matrices = [self.arrays[f"{name}.{n}"].T for n in range(_count(self.arrays, name))]
            if matrices:
                matrices[0] = matrices[0] * basis_gain
            networks |= {f"{name}.{n}.weight": matrix for n, matrix in enumerate(matrices)}
        last = f"radial.{_count(self.arrays, 'radial') - 1}.weight"
        blocks = networks[last].reshape(len(source), channels, -1)
        networks[last] = blocks[[n for n, _ in order]].reshape(len(source) * channels, -1)
        for ir in self.record["message"]:
            blocks = self.arrays[f"message.{ir}"].reshape(-1, channels, channels)  # path, k, k'
            mine = [(n, k) for (n, k), path in zip(order, self.record["paths"]) if path[2] == ir]
            scaled = [gains[n] / self.source["neighbors"] * blocks[k] for n, k in mine]
            networks[f"message.{ir}"] = np.concatenate(scaled).T
        return networks

    def path_gain(self, one: str, l2: int, three: str, weight: float) -> float:
        """Return mace-torch's couplings times the sign of the harmonics over ours."""
        l1, l3 = irrep(one).l, irrep(three).l
        ours, theirs = coupling(l1, l2, l3), self.arrays[f"w3j.{l1}.{l2}.{l3}"]
        gain = float((ours * theirs).sum() / (ours**2).sum())
        if not np.allclose(theirs, gain * ours, atol=1e-6):
            raise ConfigError(
                f"the coupling of {l1}, {l2} and {l3} in e3nn is not ours: is it another version?"
            )
        # Both have a known size; the sum above may be of rounded numbers.
        return math.copysign(weight / math.sqrt(2 * l3 + 1), gain) * (-1) ** l2

    def product(self, residual: float) -> dict[str, np.ndarray]:
        """Return the polynomials of the canonical form and their weights."""
        basis = symmetric_polynomials(self.message, self.output, self.source["correlation"])
        columns = self.columns()
        first = starts(self.output)
        weights = np.zeros((len(self.choice.species), basis.num_paths, self.source["channels"]))
        for number, output in enumerate(self.output):
            numbers = [n for n, which in enumerate(basis.outputs) if which == number]
            rows = basis.rows[np.isin(basis.rows[:, 0], numbers)].copy()
            rows[:, 0] -= numbers[0] if numbers else 0
            rows[:, 1] -= first[number]
            theirs = _renumbered(self.arrays[f"product.terms.{output}"], columns)
            given = self.arrays[f"product.weights.{output}"]
            matrix = _expressed(rows, theirs, len(numbers), given.shape[1], output, residual)
            weights[:, numbers] = np.einsum("ep,zpk->zek", matrix, given[self.choice.species])
        return {"product.terms": basis.rows, "product.weights": weights}

    def columns(self) -> np.ndarray:
        """Return our component of each of mace-torch's, -2 where no path reaches it; at the end -1 for -1."""
        places = dict(zip(self.message, starts(self.message)))
        theirs = [irrep(name) for name in self.source["message"]]
        parts = [np.arange(ir.size) + places[ir] if ir in places else np.full(ir.size, -2) for ir in theirs]
        return np.concatenate([*parts, [-1]])

    def readout(self) -> dict[str, np.ndarray]:
        """Return the readout of the head; zeros where the layer has none."""
        arrays, head = self.arrays, self.choice.head
        if "readout.0" not in arrays:
            return {"readout.0.weight": np.zeros((1, self.source["channels"]))}
        first = arrays["readout.0"]
        if "readout.1" not in arrays:
            return {"readout.0.weight": first[:, [head]].T}
        second = arrays["readout.1"]
        own = first.shape[1] // second.shape[1]  # hidden numbers of a head
        chosen = slice(head * own, (head + 1) * own)
        return {"readout.0.weight": first[:, chosen].T, "readout.1.weight": second[chosen, head][None]}


def _count(arrays: Arrays, name: str) -> int:
    return sum(key.startswith(f"{name}.") for key in arrays)


def _turned(matrices: np.ndarray) -> np.ndarray:
    return matrices.transpose(0, 2, 1)


def _renumbered(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return terms of polynomials in our components, without those that are always zero."""
    factors = np.sort(columns[rows[:, 2:5].astype(int)], axis=1)
    result = np.concatenate([rows[:, :2], factors, rows[:, 5:]], axis=1)
    return result[(columns[rows[:, 2:5].astype(int)] != -2).all(axis=1)]


def _expressed(
    ours: np.ndarray, theirs: np.ndarray, count: int, paths: int, output: Irrep, residual: float
) -> np.ndarray:
    """Return X [count, paths] such that polynomial p of theirs is Σ_e X[e, p] times polynomial e of ours.

    Ours are orthonormal in the product Σ_α α! p_α q_α, times 2l + 1.

    Raises:
        ConfigError: a polynomial is not such a sum.
    """
    keys = np.concatenate([ours[:, 1:5], theirs[:, 1:5]]).astype(int)
    unique, place = np.unique(keys, axis=0, return_inverse=True)
    matrices = []
    for rows, places, columns in (
        (ours, place.ravel()[: len(ours)], count),
        (theirs, place.ravel()[len(ours) :], paths),
    ):
        matrix = np.zeros((len(unique), columns))
        matrix[places, rows[:, 0].astype(int)] = rows[:, 5]
        matrices.append(matrix)
    factorials = [
        math.prod(map(math.factorial, Counter(f for f in key if f >= 0).values()))
        for key in unique[:, 1:].tolist()
    ]
    result = matrices[0].T @ (np.array(factorials)[:, None] * matrices[1]) / output.size
    rest = np.abs(matrices[1] - matrices[0] @ result).max(initial=0.0)
    if rest > residual:
        raise ConfigError(
            f"the polynomials to {output} have a part of {rest:.1e} that no symmetric polynomial of the "
            "messages has: the model is damaged, or of another version of mace-torch"
        )
    return result
