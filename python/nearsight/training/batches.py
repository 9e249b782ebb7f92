"""From frames to batches: graphs are made once, targets are E - ΣE0, and marked where present."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from nearsight import keys
from nearsight.couple import Charged, ChargedStructure, FrameCharger, join_charged
from nearsight.couple.coulomb import CHARGES
from nearsight.data import Frame, ReferenceEnergies
from nearsight.data.frame import charges_given
from nearsight.errors import ConfigError, DataError, EvaluationError
from nearsight.models.mace_edges import Edges
from nearsight.neighbors import Graph, collate, make_graph
from nearsight.training.devices import CPU, moved
from nearsight.training.stored import Stored

TARGETS = keys.LABELS


@dataclass(frozen=True)
class Batch:
    """B frames as one graph with their targets, in double; n atoms.

    Attributes:
        graph: of all frames.
        num_atoms: [B] atoms per frame, double.
        targets: energy [B] without reference energies, forces [n, 3], virial [B, 3, 3], charges [n], dipole
            [B, 3], born_charges [n, 3, 3]; zeros where absent.
        present: target → [B] the frame's weight where the frame has it, else 0.
        stored: descriptors or edges of the frames, where they are stored.
        charged: the frames for a couple with charges, None for others.
    """

    graph: Graph
    num_atoms: Tensor
    targets: dict[str, Tensor]
    present: dict[str, Tensor]
    stored: tuple[Stored | Edges, ...] = ()
    charged: Charged | None = None


def species_numbers(frame: Frame, species: Sequence[str]) -> np.ndarray:
    """Index of every atom's symbol in the model's species list, (n,) int64.

    Raises DataError for a species that the model does not know.
    """
    number = {symbol: index for index, symbol in enumerate(species)}
    unknown = sorted(set(frame.symbols) - set(number))
    if unknown:
        raise DataError(
            f"{frame.source} holds {', '.join(unknown)}, but the model knows only {', '.join(species)}."
        )
    return np.array([number[symbol] for symbol in frame.symbols], dtype=np.int64)


def make_batch(
    frame: Frame,
    species: Sequence[str],
    cutoff: float,
    reference: ReferenceEnergies,
    weight: float = 1.0,
    charger: FrameCharger | None = None,
) -> Batch:
    """One frame as a batch, in double; `charger` of a couple with charges."""
    n = len(frame)
    kinds = species_numbers(frame, species)
    graph = make_graph(frame.positions, kinds, frame.cell, frame.pbc, cutoff)
    labels = dict(frame.labels)
    if keys.ENERGY in labels:
        labels[keys.ENERGY] = labels[keys.ENERGY] - reference.total(frame.symbols)
    targets = {
        name: torch.as_tensor(
            np.broadcast_to(labels.get(name, 0.0), _shape(name, n)).copy(), dtype=torch.float64
        )
        for name in TARGETS
    }
    present = {name: torch.tensor([weight * (name in labels)], dtype=torch.float64) for name in TARGETS}
    charged = _charge(frame, kinds, charger) if charger else None
    return Batch(graph, torch.tensor([float(n)], dtype=torch.float64), targets, present, charged=charged)


def _shape(name: str, num_atoms: int) -> tuple[int, ...]:
    shape = keys.label_shape(name, num_atoms)
    return shape if name in keys.OF_ATOMS else (1, *shape)


def _charge(frame: Frame, kinds: np.ndarray, charger: FrameCharger) -> Charged:
    given = charges_given(frame.info, len(frame), frame.source)
    try:
        return charger(ChargedStructure(frame.positions, kinds, frame.cell, frame.pbc, *given))
    except (ConfigError, EvaluationError) as error:
        raise DataError(f"{frame.source}: {error}.") from error


def born_layers(batch: Batch, model: nn.Module) -> int:
    """Return what `evaluate` takes as `born_charges` to compare with labels: the model's interaction layers
    where a frame of the batch has labels and the model gives them, else 0."""
    if model.couple.get("charges") not in CHARGES or not batch.present[keys.BORN_CHARGES].any():
        return 0
    periodic = bool(batch.charged.frames.pbc.any())
    return model.num_interactions if model.num_interactions == 1 or not periodic else 0


def join(batches: Sequence[Batch], device: torch.device = CPU) -> Batch:
    """One batch of several, on a device."""
    joined = Batch(
        graph=collate([batch.graph for batch in batches]),
        num_atoms=torch.cat([batch.num_atoms for batch in batches]),
        targets=_join_targets([batch.targets for batch in batches]),
        present=_join_targets([batch.present for batch in batches]),
        stored=tuple(stored for batch in batches for stored in batch.stored),
        charged=join_charged([batch.charged for batch in batches]) if batches[0].charged else None,
    )
    return joined if device == CPU else moved(joined, device)


def _join_targets(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def hands(num_frames: int, batch_size: int, seed: int) -> list[np.ndarray]:
    """Frame numbers dealt into `batch_size` hands. A batch takes one frame of each, so that a process which
    owns some of the hands has the same part of every batch, and needs no other frames."""
    order = np.random.default_rng(seed).permutation(num_frames)
    return [order[hand::batch_size] for hand in range(min(batch_size, num_frames))]


def batch_order(num_frames: int, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Frame numbers of every batch of an epoch, by hands: a function of the seed and the epoch alone, so that
    a restart needs no state of a random generator."""
    rng = np.random.default_rng([seed, epoch])
    shuffled = [rng.permutation(hand).tolist() for hand in hands(num_frames, batch_size, seed)]
    return [[hand[k] for hand in shuffled if k < len(hand)] for k in range(len(shuffled[0]))]
