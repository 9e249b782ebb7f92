"""MACE: equivariant message passing of high body order (Batatia et al., NeurIPS 35, 2022), as a torch module.

The module interprets the canonical form of docs/message_passing.md: its hyperparameters and tensors are
those of the model file, with every normalization folded into them. It is the oracle of the native engine.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nearsight.data.elements import covalent_radii
from nearsight.models.constants import ConstantsModule
from nearsight.models.edge_functions import RadialBasis
from nearsight.models.energy_model import EnergyModel
from nearsight.models.equivariant import (
    Dense,
    EdgeNetwork,
    IrrepsLinear,
    PathLinear,
    Weight,
    edge_convolution,
    horner_tables,
    root_mean_square,
    symmetric_contraction,
)
from nearsight.models.harmonics import spherical_harmonics
from nearsight.models.irreps import irrep, starts
from nearsight.models.pair_energies import ZBL, Walls
from nearsight.neighbors import Graph

_FITTED_FRAMES = 8
_ROUND_OFF = 1e-10


class Interaction(ConstantsModule):
    """One layer: messages of the neighbors, their polynomials, new features.

    Args:
        record: of the layer, see docs/file_format.md.
        weights: tensors of the layer by their names without `layers.<t>.`.
        channels: K.
        l_max: of the harmonics.
        envelope: "basis" or "functions", what the envelope multiplies.
    """

    def __init__(
        self,
        record: Mapping[str, Any],
        weights: Mapping[str, Tensor],
        channels: int,
        l_max: int,
        envelope: str,
    ):
        super().__init__()
        self.names = {part: list(record[part]) for part in ("input", "message", "output")}
        source, message, output = ([irrep(name) for name in record[part]] for part in self.names)
        self.channels = channels
        self.num_components = starts(output)[-1]
        self.sizes = [which.size for which in source]
        self.paths = [
            [record["input"].index(one), irrep(one).size, irrep(three).size]
            for one, _, three in record["paths"]
        ]

        def maps(name: str, irreps: Iterable[str]) -> list[Tensor]:
            present = any(key.startswith(f"{name}.") for key in weights)
            return [weights[f"{name}.{which}"] for which in irreps] if present else []

        def dense(name: str) -> list[Tensor]:
            return [weights[f"{name}.{n}.weight"] for n in range(_count(weights, name))]

        self.up = IrrepsLinear(starts(source), maps("up", record["input"]))
        self.radial = EdgeNetwork(dense("radial"), envelope)
        self.density = EdgeNetwork(dense("density"), envelope, density=True)
        self.message = PathLinear([which.size for which in message], maps("message", record["message"]))
        self.select = IrrepsLinear(starts(message), maps("select", record["message"]))
        self.update = IrrepsLinear(starts(output), maps("update", record["output"]))
        self.product = Weight(weights["product.weights"])
        self.readout = Dense(dense("readout"))
        # The part of the input that the output has too.
        self.common = [name for name in record["output"] if f"skip.{name}" in weights]
        self.skip = IrrepsLinear(starts([irrep(name) for name in self.common]), maps("skip", self.common))
        self.start = nn.ModuleList([Weight(weights["skip"])] if "skip" in weights else [])
        self.register_buffer("skip_from", _components(record["input"], self.common))
        self.register_buffer("skip_to", _components(record["output"], self.common))
        self._set_tables(weights, l_max)

    def _set_tables(self, weights: Mapping[str, Tensor], l_max: int) -> None:
        """Dense couplings [(l_max + 1)², Φ], and the polynomials by term."""
        rows = weights["couplings"].to(torch.float64)
        num_phi = sum(size1 * size3 for _, size1, size3 in self.paths)
        couplings = torch.zeros((l_max + 1) ** 2, num_phi, dtype=torch.float64)
        couplings.index_put_((rows[:, 1].long(), rows[:, 0].long()), rows[:, 2], accumulate=True)
        self.constant("couplings", couplings)
        terms = weights["product.terms"].to(torch.float64)
        unique, place = torch.unique(terms[:, 1:5].long(), dim=0, return_inverse=True)
        coefficients = torch.zeros(len(unique), weights["product.weights"].size(1), dtype=torch.float64)
        coefficients.index_put_((place, terms[:, 0].long()), terms[:, 5], accumulate=True)
        self.constant("coefficients", coefficients)
        self.register_buffer("terms", unique)
        for stage, (factor, place) in enumerate(zip(*horner_tables(unique))):
            self.register_buffer(f"factors{stage}", factor)
            self.register_buffer(f"sums{stage}", place)

    def forward(
        self,
        h: Tensor,
        species: Tensor,
        edge_index: Tensor,
        basis: Tensor,
        envelope: Tensor,
        harmonics: Tensor,
        num_rows: int,
    ) -> Tensor:
        """Return the features [num_rows, components of the output, K] from h [M, components, K].

        Args:
            h: features of all atoms.
            species: [M].
            edge_index: [2, E], centers below num_rows.
            basis, envelope: of the distances, see `RadialBasis`.
            harmonics: Y [E, (l_max + 1)²].
            num_rows: atoms of the result.
        """
        kinds = species[:num_rows]
        sums = self.sums(h, species, edge_index, basis, envelope, harmonics, num_rows)
        m = self.messages(sums, kinds, edge_index, basis, envelope)
        products = symmetric_contraction(
            m,
            self.product(),
            kinds,
            self.coefficients,
            [self.factors0, self.factors1, self.factors2],
            [self.sums0, self.sums1, self.sums2],
            [self.factors1.size(0), self.factors2.size(0), self.num_components],
        )
        return self.updated(products, h[:num_rows], kinds)

    def sums(
        self,
        h: Tensor,
        species: Tensor,
        edge_index: Tensor,
        basis: Tensor,
        envelope: Tensor,
        harmonics: Tensor,
        num_rows: int,
    ) -> Tensor:
        """Return A [num_rows, Σ_p (2 l3 + 1), K], sums over neighbors for each path; arguments as above."""
        if len(self.up.weights) > 0:
            h = self.up(h, species)
        radial = self.radial(basis, envelope).view(-1, len(self.paths), self.channels)
        return edge_convolution(
            h, radial, harmonics, edge_index, self.couplings, self.sizes, self.paths, num_rows
        )

    def messages(
        self, sums: Tensor, kinds: Tensor, edge_index: Tensor, basis: Tensor, envelope: Tensor
    ) -> Tensor:
        """Return m [n, components, K], of which the polynomials are, from A and the species [n]."""
        m = self.message(sums)
        if len(self.density.network.layers) > 0:
            near = self.density(basis, envelope).squeeze(1)
            density = torch.zeros(m.size(0), dtype=m.dtype, device=m.device).index_add(0, edge_index[0], near)
            m = m / (1.0 + density).view(-1, 1, 1)
        if len(self.select.weights) > 0:
            m = self.select(m, kinds)
        return m

    @torch.jit.unused
    def normalize(self, sums: Tensor, m: Tensor) -> None:
        """Give the messages of the largest irrep a root mean square of 1, the others in proportion to A.

        Irreps that hardly occur in A must stay small: amplified they would make the model rough.
        """
        sizes = [block.square().mean().sqrt() for block in sums.split(self.message.blocks, dim=1)]
        largest = torch.stack(sizes).max()
        parts = m.split(self.message.sizes, dim=1)
        for size, part, weight in zip(sizes, parts, self.message.weights):
            if size > _ROUND_OFF * largest:  # pseudoscalars of flat molecules are not
                weight.scale.mul_(size / (largest * root_mean_square(part)))

    def updated(self, products: Tensor, h: Tensor, kinds: Tensor) -> Tensor:
        """Return the new features from the polynomials and the features before."""
        new = self.update(products, kinds)
        if len(self.skip.weights) > 0:
            kept = self.skip(h.index_select(1, self.skip_from), kinds)
            new = new.index_add(1, self.skip_to, kept)
        for start in self.start:
            new = torch.cat([new[:, :1] + start()[kinds].unsqueeze(1), new[:, 1:]], dim=1)
        return new

    @torch.jit.unused
    def weights(self) -> dict[str, Tensor]:
        """Return the tensors of the layer by their names without `layers.<t>.`."""
        phi, harmonic = torch.nonzero(self.couplings.T, as_tuple=True)
        term, path = torch.nonzero(self.coefficients, as_tuple=True)
        tensors = {
            "couplings": torch.stack([phi, harmonic, self.couplings[harmonic, phi]], 1),
            "product.terms": torch.cat(
                [path.unsqueeze(1), self.terms[term], self.coefficients[term, path].unsqueeze(1)], 1
            ),
            "product.weights": self.product(),
        }
        for start in self.start:
            tensors["skip"] = start()
        maps = {
            "up": (self.up, self.names["input"]),
            "message": (self.message, self.names["message"]),
            "select": (self.select, self.names["message"]),
            "update": (self.update, self.names["output"]),
            "skip": (self.skip, self.common),
        }
        for name, (module, irreps) in maps.items():
            tensors |= {f"{name}.{which}": weight() for which, weight in zip(irreps, module.weights)}
        networks = {
            "radial": self.radial.network,
            "density": self.density.network,
            "readout": self.readout,
        }
        for name, network in networks.items():
            tensors |= {f"{name}.{n}.weight": weight() for n, weight in enumerate(network.layers)}
        return tensors


def _count(weights: Mapping[str, Tensor], name: str) -> int:
    """Number of layers of a network."""
    return sum(1 for key in weights if key.startswith(f"{name}.") and key.endswith(".weight"))


def _components(irreps: list[str], chosen: list[str]) -> Tensor:
    """Numbers of the components of the chosen ones among the irreps."""
    first = dict(zip(irreps, starts([irrep(name) for name in irreps])))
    numbers = [first[name] + k for name in chosen for k in range(irrep(name).size)]
    return torch.tensor(numbers, dtype=torch.int64)


class MACE(EnergyModel):
    """A MACE model; keeps docs/model_contract.md.

    Args:
        species: chemical symbols; their order numbers the species.
        cutoff: Å.
        hyperparameters: of the model file, see docs/file_format.md.
        weights: tensors of the model file; `scale` and `shift` may be missing.
        readouts: columns of readouts beside the energy, by name.
    """

    architecture = "mace"

    def __init__(
        self,
        species: list[str],
        cutoff: float,
        hyperparameters: Mapping[str, Any],
        weights: Mapping[str, Tensor],
        readouts: Mapping[str, int] | None = None,
    ):
        radial, layers = hyperparameters["radial"], hyperparameters["layers"]
        scale, shift = weights.get("scale"), weights.get("shift")
        super().__init__(species, cutoff, len(layers), readouts, scale, shift)
        self.hyperparameters = dict(hyperparameters)
        self.l_max: int = hyperparameters["l_max"]
        self.embedding = Weight(weights["embedding"])
        self.basis = RadialBasis(radial, weights, self.cutoff, len(species))
        self.zbl = ZBL(hyperparameters["zbl"], len(species))
        self.walls = Walls(hyperparameters.get("walls"), weights.get("walls"), len(species))
        self.layers = nn.ModuleList(
            Interaction(
                layer, _of_layer(weights, t), hyperparameters["channels"], self.l_max, radial["envelope"]
            )
            for t, layer in enumerate(layers)
        )

    def forward(
        self, species: Tensor, edge_index: Tensor, edge_vectors: Tensor, num_owned: int
    ) -> dict[str, Tensor]:
        """Return the readout `energy` [num_owned] in eV, and others [num_owned, columns]."""
        distances, basis, envelope, harmonics = self.edges(species, edge_index, edge_vectors)
        # Edges are sorted by center, and those of owned atoms come first.
        owned = int((edge_index[0] < num_owned).sum())
        columns = self.scale.numel()
        outputs = torch.zeros(num_owned, columns, dtype=edge_vectors.dtype, device=edge_vectors.device)
        h = self.embedding()[species].unsqueeze(1)
        for t, layer in enumerate(self.layers):
            rows, edges = species.size(0), edge_index.size(1)
            if t == self.num_interactions - 1:
                rows, edges = num_owned, owned
            h = layer(
                h, species, edge_index[:, :edges], basis[:edges], envelope[:edges], harmonics[:edges], rows
            )
            outputs = outputs + layer.readout(h[:num_owned, 0])
        found = self.readouts_of(outputs, species[:num_owned])
        pairs = self.pair_energies(distances[:owned], species, edge_index[:, :owned], num_owned)
        found["energy"] = found["energy"] + pairs.to(outputs.dtype)
        return found

    def pair_energies(self, distances: Tensor, species: Tensor, edge_index: Tensor, num_owned: int) -> Tensor:
        """Return the energies [num_owned] of `zbl` and `walls`, in eV and double precision."""
        zbl = self.zbl(distances, species, edge_index, num_owned)
        return zbl + self.walls(distances, species, edge_index, num_owned)

    def edges(
        self, species: Tensor, edge_index: Tensor, edge_vectors: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return distances [E], basis functions and envelope (see `RadialBasis`), and harmonics."""
        distances = torch.sqrt((edge_vectors**2).sum(1))
        basis, envelope = self.basis(distances, species, edge_index)
        harmonics = spherical_harmonics(edge_vectors / distances.unsqueeze(1), self.l_max)
        return distances, basis, envelope, math.sqrt(4.0 * math.pi) * harmonics

    @torch.jit.unused
    @torch.no_grad()
    def fit_statistics(
        self, graphs: Iterable[Graph], output_scale: float, source: nn.Module | None = None
    ) -> None:
        """Scale radial functions and messages, layer by layer, by their sizes; and see `EnergyModel`."""
        graphs = list(graphs)
        some = graphs[:: max(1, len(graphs) // _FITTED_FRAMES)]
        features = [self.embedding()[graph.species].unsqueeze(1) for graph in some]
        edges = [self.edges(graph.species, graph.edge_index, graph.edge_vectors)[1:] for graph in some]
        basis, envelope, _ = (torch.cat(parts) for parts in zip(*edges))
        for layer in self.layers:
            layer.radial.normalize(basis, envelope)
            layer.density.normalize(basis, envelope)
            arguments = [
                (h, graph.species, graph.edge_index, *each, graph.num_atoms)
                for h, graph, each in zip(features, some, edges)
            ]
            sums = [layer.sums(*each) for each in arguments]
            messages = [
                layer.messages(a, graph.species, graph.edge_index, *each[:2])
                for a, graph, each in zip(sums, some, edges)
            ]
            layer.normalize(torch.cat(sums), torch.cat(messages))
            features = [layer(*each) for each in arguments]
        super().fit_statistics(graphs, output_scale, source)

    @torch.jit.unused
    def fit_walls(self, graphs: Iterable[Graph]) -> None:
        """Set the limits of `walls`, if there are any, from all graphs of the training set."""
        if self.walls.used:
            self.walls.fit(graphs, covalent_radii(self.species))

    @torch.jit.unused
    def record(self) -> dict[str, Any]:
        """Return the hyperparameters of the model file."""
        return self.hyperparameters

    @torch.jit.unused
    def weights(self) -> dict[str, Tensor]:
        """Return the tensors of weights.safetensors by their names in docs/file_format.md."""
        tensors = {
            "embedding": self.embedding(),
            **self.basis.weights(),
            "scale": self.scale,
            "shift": self.shift,
        }
        if self.walls.used:
            tensors["walls"] = self.walls.limits
        for t, layer in enumerate(self.layers):
            tensors |= {f"layers.{t}.{name}": tensor for name, tensor in layer.weights().items()}
        return {
            name: tensor.detach().to("cpu", torch.float64).contiguous() for name, tensor in tensors.items()
        }


def _of_layer(weights: Mapping[str, Tensor], t: int) -> dict[str, Tensor]:
    """The tensors of a layer by their names in it."""
    prefix = f"layers.{t}."
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
