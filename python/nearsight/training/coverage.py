"""What the training set covers: the ranges of the features, and where data and descriptor do not fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from nearsight.export.ranges import training_ranges
from nearsight.neighbors import Graph

_DISTANCES = (0.2, 0.35, 0.5, 0.65, 0.8)  # of a neighbor, in cutoffs
_NOTHING = 1e-10  # change of a feature that a neighbor makes


def survey(model: nn.Module, graphs: Iterable[Graph], source: nn.Module) -> list[str]:
    """Set the model's training ranges from all graphs, and return sentences on what looks wrong.

    Args:
        model: with `fit_ranges`, `descriptor`, `weights` and `labels`, as BPNN.
        graphs: of the training set; they are gone through once.
        source: a training module of the model, which evaluates its features faster.
    """
    pairs: set[tuple[int, int]] = set()

    def seen() -> Iterator[Graph]:
        for graph in graphs:
            center, neighbor = graph.species[graph.edge_index]
            pairs.update((int(a), int(b)) for a, b in torch.unique(torch.stack([center, neighbor]), dim=1).T)
            yield graph

    model.fit_ranges(seen(), source)
    sentences = [
        f"The descriptor of {model.species[a]} does not see {model.species[b]}, which the training set has "
        "within the cutoff: give it functions for this pair."
        for a, b in sorted(pairs)
        if not _resolves(model, a, b)
    ]
    ranges = training_ranges(model.species, model.weights(), model.labels())
    return sentences + [f"Training ranges of {part}." for part in ranges if not part.complete]


def _resolves(model: nn.Module, center: int, neighbor: int) -> bool:
    """Whether any feature of the center changes when a neighbor of this species comes, alone or as a second
    one."""
    for third in (None, *range(len(model.species))):
        for distance in _DISTANCES:
            r = distance * model.cutoff
            others = [] if third is None else [(third, (0.0, 0.9 * r, 0.1 * r))]
            without = _features(model, center, others)
            present = _features(model, center, [(neighbor, (r, 0.1 * r, 0.0)), *others])
            if (present - without).abs().max() > _NOTHING:
                return True
    return False


def _features(model: nn.Module, center: int, neighbors: list[tuple[int, tuple[float, ...]]]) -> Tensor:
    """Return the features of a center with neighbors (species, vector in Å)."""
    species = torch.tensor([center, *(kind for kind, _ in neighbors)])
    edges = torch.stack([torch.zeros(len(neighbors), dtype=torch.int64), torch.arange(1, len(species))])
    vectors = torch.tensor([vector for _, vector in neighbors], dtype=torch.float64).reshape(-1, 3)
    table = model.descriptor(species, edges, vectors, 1)
    return table[0, model.descriptor.columns(model.species[center])]
