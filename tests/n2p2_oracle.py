"""n2p2's potentials by plain loops, from the formulas of its manual; and random ones for tests.

Works on the lines of input.nn themselves and shares no code with nearsight. Everything in the potential's
own units.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np

ATOMIC_NUMBERS = {"H": 1, "C": 6, "O": 8, "S": 16}


def core(name, x):
    """The falling function on [0, 1] of a subtype without its a: p1 to p4, e."""
    if name == "p1":
        return 1 - 3 * x**2 + 2 * x**3
    if name == "p2":
        return 1 - 10 * x**3 + 15 * x**4 - 6 * x**5
    if name == "p3":
        return 1 - 35 * x**4 + 84 * x**5 - 70 * x**6 + 20 * x**7
    if name == "p4":
        return 1 - 126 * x**5 + 420 * x**6 - 540 * x**7 + 315 * x**8 - 70 * x**9
    return math.exp(1 - 1 / (1 - x**2)) if x < 1 else 0.0


def compact(subtype, x, left, right):
    t = abs(x - 0.5 * (left + right)) / (0.5 * (right - left))
    if t >= 1:
        return 0.0
    return core(subtype[:2], 2 * t - t * t if subtype.endswith("a") else t)


def cutoff(kind, alpha, r, rc):
    if r >= rc:
        return 0.0
    if kind == 0:
        return 1.0
    if kind in (2, 3):
        return math.tanh(1 - r / rc) ** 3 / (math.tanh(1) ** 3 if kind == 3 else 1)
    x = (r - alpha * rc) / (rc - alpha * rc)
    if x < 0:
        return 1.0
    if kind == 1:
        return 0.5 * (math.cos(math.pi * x) + 1)
    return core({4: "e", 5: "p1", 6: "p2", 7: "p3", 8: "p4"}[kind], x)


def symmetry_function(words, cutoff_type, alpha, neighbors):
    """The value of one function; words after its central element; neighbors [(symbol, vector)]."""
    kind, args = int(words[0]), words[1:]
    elements = {2: 1, 20: 1, 3: 2, 9: 2, 21: 2, 22: 2}.get(kind, 0)
    wanted, rest = sorted(args[:elements]), args[elements:]
    subtype = rest.pop() if kind >= 20 else ""
    p = [float(word) for word in rest]

    def counts(*symbols):
        if wanted:
            return float(sorted(symbols) == wanted)
        return math.prod(ATOMIC_NUMBERS[symbol] for symbol in symbols)

    if kind in (2, 12):
        eta, shift, rc = p
        side = lambda r: math.exp(-eta * (r - shift) ** 2) * cutoff(cutoff_type, alpha, r, rc)  # noqa: E731
    elif kind in (3, 9, 13):
        if kind == 13:
            eta, shift, sign, zeta, rc = p
        else:
            eta, sign, zeta, rc, shift = [*p, 0.0][:5]
        side = lambda r: math.exp(-eta * (r - shift) ** 2) * cutoff(cutoff_type, alpha, r, rc)  # noqa: E731
        angle = lambda c: 2 ** (1 - zeta) * max(0.0, 1 + sign * c) ** zeta  # noqa: E731
    else:
        side = lambda r: compact(subtype, r, p[0], p[1])  # noqa: E731
        if kind not in (20, 23):
            window = math.radians(p[2]), math.radians(p[3])
            angle = lambda c: compact(subtype[:2], math.acos(max(-1, min(1, c))), *window)  # noqa: E731
    if kind in (2, 12, 20, 23):
        return sum(counts(symbol) * side(np.linalg.norm(v)) for symbol, v in neighbors)
    total = 0.0
    for (a, u), (b, v) in itertools.combinations(neighbors, 2):
        r, s = np.linalg.norm(u), np.linalg.norm(v)
        far = 1.0 if kind in (9, 22, 25) else side(np.linalg.norm(u - v))
        if counts(a, b):
            total += counts(a, b) * angle(float(u @ v) / (r * s)) * side(r) * side(s) * far
    return total


ACTIVATIONS = {
    "l": lambda x: x,
    "t": np.tanh,
    "s": lambda x: 1 / (1 + np.exp(-x)),
    "S": lambda x: 1 - 1 / (1 + np.exp(-x)),
    "p": lambda x: np.log(1 + np.exp(x)),
    "r": lambda x: np.maximum(0, x),
    "g": lambda x: np.exp(-(x**2) / 2),
    "c": np.cos,
    "e": lambda x: np.exp(-x),
    "h": lambda x: x**2,
}


class Potential:
    """Random weights for the given functions; `functions` are the words after `symfunction_short`, sorted
    as n2p2 sorts them, and `shuffled` the order in which they are written."""

    def __init__(self, functions, cutoff_type="2", activations="t", nodes=(4,), options=(), seed=0):
        self.functions = {}  # by central element
        for line in functions:
            center, *words = line.split()
            self.functions.setdefault(center, []).append(words)
        self.elements = sorted(self.functions, key=ATOMIC_NUMBERS.get)
        self.cutoff_type, self.alpha = int(cutoff_type.split()[0]), float((*cutoff_type.split(), 0)[1])
        self.cutoff_line, self.activations, self.nodes = cutoff_type, activations, nodes
        self.options = dict(options)
        rng = np.random.default_rng(seed)
        self.rng = rng
        self.layers, self.statistics = {}, {}
        for symbol in self.elements:
            widths = [len(self.functions[symbol]), *nodes, 1]
            self.layers[symbol] = [
                (rng.normal(0, 1, (a, b)), rng.normal(0, 1, b)) for a, b in itertools.pairwise(widths)
            ]
            low = rng.random(widths[0]) * 0.1
            high = low + 0.5 + rng.random(widths[0])
            self.statistics[symbol] = np.array([low, high, 0.6 * low + 0.4 * high, 0.3 * (high - low)]).T

    def scaled(self, symbol, values):
        low, high, mean, sigma = self.statistics[symbol].T
        bottom, top = (float(self.options.get(f"scale_{k}_short", d)) for k, d in (("min", 0), ("max", 1)))
        scale, center = (f"{k}_symmetry_functions" in self.options for k in ("scale", "center"))
        if scale:
            return bottom + (top - bottom) * (values - (mean if center else low)) / (high - low)
        if center:
            return values - mean
        if "scale_symmetry_functions_sigma" in self.options:
            return bottom + (top - bottom) * (values - mean) / sigma
        return values

    def energy(self, positions, symbols):
        """Total energy of a molecule."""
        total = 0.0
        for i, center in enumerate(symbols):
            neighbors = [(symbols[j], positions[j] - positions[i]) for j in range(len(symbols)) if j != i]
            x = np.array(
                [
                    symmetry_function(list(words), self.cutoff_type, self.alpha, neighbors)
                    for words in self.functions[center]
                ]
            )
            y = self.scaled(center, x)
            for letter, (weight, bias) in zip([*self.activations, "l"], self.layers[center]):
                z = y @ weight + bias
                if "normalize_nodes" in self.options:
                    z = z / len(y)
                y = ACTIVATIONS[letter](z)
            total += float(y[0]) / float(self.options.get("conv_energy", 1))
            total += float(self.options.get("mean_energy", 0)) + float(
                self.options.get(f"atom_energy {center}", 0)
            )
        return total

    def write(self, folder: Path):
        """Write input.nn, scaling.data and weights.NNN.data."""
        folder.mkdir(parents=True, exist_ok=True)
        lines = [
            f"number_of_elements {len(self.elements)}",
            f"elements {' '.join(reversed(self.elements))}",
            f"cutoff_type {self.cutoff_line} # a comment",
            f"global_hidden_layers_short {len(self.nodes)}",
            f"global_nodes_short {' '.join(map(str, self.nodes))}",
            f"global_activation_short {' '.join(self.activations)} l",
            "epochs 10",
            *(f"{keyword} {value}" for keyword, value in self.options.items()),
        ]
        entries = [
            f"symfunction_short {c} {' '.join(w)}" for c, words in self.functions.items() for w in words
        ]
        self.rng.shuffle(entries)
        (folder / "input.nn").write_text("\n".join(lines + entries) + "\n")
        rows = ["# min max mean sigma"]
        for number, symbol in enumerate(self.elements, 1):
            for k, values in enumerate(self.statistics[symbol], 1):
                rows.append(f"{number} {k} " + " ".join(f"{v:.17g}" for v in values))
            weights = ["# connection"]
            for weight, bias in self.layers[symbol]:
                weights += [f"{v:.17g} a" for v in weight.ravel()] + [f"{v:.17g} b" for v in bias]
            name = f"weights.{ATOMIC_NUMBERS[symbol]:03d}.data"
            (folder / name).write_text("\n".join(weights) + "\n")
        (folder / "scaling.data").write_text("\n".join(rows) + "\n")
        return folder
