"""ANI in plain numpy loops from the papers' formulas, and small models of it in NeuroChem's files.

All numbers are exact in single precision, as in the model zoo's files.
"""

from __future__ import annotations

import bz2
import itertools
from pathlib import Path

import numpy as np

CUTOFF_FUNCTIONS = {
    "cos": lambda x: 0.5 * (1.0 + np.cos(np.pi * x)),
    "exp": lambda x: np.exp(1.0 - 1.0 / (1.0 - x**2)),
}


def environment_vector(center, positions, symbols, species, record):
    """The vector of one atom of a cluster, by the record of docs/file_format.md."""
    radial, angular = record["radial"], record["angular"]
    others = [k for k in range(len(symbols)) if k != center]
    vectors = {k: positions[k] - positions[center] for k in others}
    distance = {k: np.linalg.norm(vectors[k]) for k in others}

    def cut(r, cutoff):
        return CUTOFF_FUNCTIONS[record["cutoff_function"]](r / cutoff) if r < cutoff else 0.0

    features = []
    for symbol in species:
        near = [distance[k] for k in others if symbols[k] == symbol]
        for shift in radial["shifts"]:
            terms = [np.exp(-radial["eta"] * (r - shift) ** 2) * cut(r, radial["cutoff"]) for r in near]
            features.append(0.25 * sum(terms))
    for a, b in itertools.combinations_with_replacement(species, 2):
        pairs = [
            (j, k)
            for j, k in itertools.combinations(others, 2)
            if sorted([symbols[j], symbols[k]]) == sorted([a, b])
        ]
        for shift in angular["shifts"]:
            for angle in angular["angles"]:
                total = 0.0
                for j, k in pairs:
                    cosine = vectors[j] @ vectors[k] / (distance[j] * distance[k])
                    theta = np.arccos(0.95 * cosine)
                    mean = (distance[j] + distance[k]) / 2
                    total += (
                        2 ** (1 - angular["zeta"])
                        * (1 + np.cos(theta - angle)) ** angular["zeta"]
                        * np.exp(-angular["eta"] * (mean - shift) ** 2)
                        * cut(distance[j], angular["cutoff"])
                        * cut(distance[k], angular["cutoff"])
                    )
                features.append(total)
    return np.array(features)


RECORD = {
    "kind": "ani",
    "cutoff_function": "cos",
    "radial": {"cutoff": 4.5, "eta": 3.25, "shifts": [0.75, 1.5, 2.75]},
    "angular": {
        "cutoff": 3.5,
        "eta": 2.5,
        "zeta": 5.5,
        "shifts": [0.75, 1.875],
        "angles": [0.375, 1.5, 2.75],
    },
}
SPECIES = ["H", "C", "O"]


class Model:
    """An ensemble with random weights; `widths` of the hidden layers per element."""

    def __init__(self, members=2, seed=0, widths=None):
        rng = np.random.default_rng(seed)
        self.widths = widths or {"H": [6, 5], "C": [7, 4], "O": [5]}
        inputs = 3 * len(RECORD["radial"]["shifts"]) + 6 * 6
        self.self_energies = dict(zip(SPECIES, (-0.5, -37.75, -75.125)))
        self.networks = []
        for _ in range(members):
            self.networks.append({})
            for symbol in SPECIES:
                sizes = [inputs, *self.widths[symbol], 1]
                self.networks[-1][symbol] = [
                    (
                        rng.normal(scale=a**-0.5, size=(b, a)).astype(np.float32).astype(float),
                        rng.normal(size=b).astype(np.float32).astype(float),
                    )
                    for a, b in itertools.pairwise(sizes)
                ]

    def energies(self, positions, symbols):
        """Energy of each member, hartree."""
        vectors = [environment_vector(i, positions, symbols, SPECIES, RECORD) for i in range(len(symbols))]
        totals = []
        for networks in self.networks:
            total = sum(self.self_energies[symbol] for symbol in symbols)
            for symbol, x in zip(symbols, vectors):
                *hidden, (weight, bias) = networks[symbol]
                for w, b in hidden:
                    z = w @ x + b
                    x = np.where(z > 0, z, 0.1 * (np.exp(np.minimum(z, 0) / 0.1) - 1))
                total += (weight @ x + bias).item()
            totals.append(total)
        return np.array(totals)

    def write(self, folder: Path, packed=True) -> Path:
        """Write the files of the model zoo; returns the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        radial, angular = RECORD["radial"], RECORD["angular"]
        constants = {
            "TM": 1,
            "Rcr": f"{radial['cutoff']:.4e}",
            "Rca": f"{angular['cutoff']:.4e}",
            "EtaR": _listed([radial["eta"]]),
            "ShfR": _listed(radial["shifts"]),
            "Zeta": _listed([angular["zeta"]]),
            "ShfZ": _listed(angular["angles"]),
            "EtaA": _listed([angular["eta"]]),
            "ShfA": _listed(angular["shifts"]),
            "Atyp": f"[{','.join(SPECIES)}]",
        }
        (folder / "small.params").write_text("".join(f"{k} = {v}\n" for k, v in constants.items()))
        (folder / "sae.dat").write_text(
            "".join(f"{s},{k}={e}\n" for k, (s, e) in enumerate(self.self_energies.items()))
        )
        (folder / "small.info").write_text(f"small.params\nsae.dat\ntrain\n{len(self.networks)}\n")
        for number, networks in enumerate(self.networks):
            (folder / f"train{number}" / "networks").mkdir(parents=True, exist_ok=True)
            for symbol, layers in networks.items():
                _write_network(folder / f"train{number}" / "networks" / f"ANN-{symbol}.nnf", layers, packed)
        return folder


def _listed(numbers):
    return f"[{','.join(f'{x:.7e}' for x in numbers)}]"


def _write_network(path, layers, packed):
    sections = [f"inputsize={layers[0][0].shape[1]};\natom_net {path.stem[4:]} $\n"]
    for number, (weight, bias) in enumerate(layers, 1):
        files = []
        for kind, numbers in (("w", weight), ("b", bias)):
            file = path.with_name(f"{path.name}-l{number}.{kind}param")
            file.write_bytes(numbers.astype("<f4").tobytes())
            files.append(f"FILE:{file.name}[{numbers.size}]")
        sections.append(
            f"layer [\nnodes={len(bias)}; ! of this layer\nactivation={6 if number == len(layers) else 9};\n"
            f"type=0;\nblocksize={weight.shape[1]};\nl2valu=0.000001;\nbtchnorm=0;\nweights={files[0]};\n"
            f"biases={files[1]};\n]\n"
        )
    text = ("".join(sections) + "\n $ ").encode()
    compressed = bz2.compress(text)
    path.write_bytes(b"%d=\n" % len(compressed) + compressed if packed else text)
