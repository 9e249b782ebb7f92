"""Second-order training: Levenberg-Marquardt on the residuals of energies, forces and virials.

The loss of a batch is a sum of squares, L = rᵀr, each residual weighted as in `loss`. With the Jacobian
J = dr/dθ of the batch the step solves

    (A + μ ā 1) s = -Jᵀr,    A: average of JᵀJ over the batches so far, ā: mean of its diagonal

with the exact gradient 2Jᵀr of the batch. JᵀJ is made of all energies and virials and of the forces on a
random part of the atoms. `memory` is the weight of the past in A: a batch of a few frames says too little
about many parameters. With `memory` 0 and all frames in a batch this is the textbook method. The damping μ
follows the gain ratio, how much of the decrease that the batch's quadratic model predicts was found; a step
that raises the loss of its batch is undone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from nearsight import keys
from nearsight.couple import evaluate
from nearsight.errors import ConfigError
from nearsight.models.bpnn import BPNN
from nearsight.models.native import NativeBPNN
from nearsight.training.batches import Batch, join
from nearsight.training.config import LevenbergMarquardtConfig, TrainingConfig, batch_size
from nearsight.training.jacobian import model_rows
from nearsight.training.loss import Loss
from nearsight.training.processes import Processes
from nearsight.training.stored import STRAINS, StoredModule

MAX_PARAMETERS = 12_000  # the matrix then has 1.2 GB
_LOW_GAIN, _HIGH_GAIN = 0.25, 0.75  # below and above, the damping changes
_RAISE, _LOWER = 2.0, 3.0
_SMALLEST_DAMPING = 1e-9
_BLOCKS = 8  # of columns of the matrix, of which the upper triangle of blocks is left out
_FRAMES = 4  # that a thread works on at a time
_ROWS = 1024  # of the Jacobian that are collected before they are multiplied

_Task = TypeVar("_Task")
_Found = TypeVar("_Found")


class NormalMatrix:
    """A symmetric matrix of which the blocks on and below the diagonal are kept.

    Attributes:
        values: [n, n]; zero above the blocks on the diagonal.
    """

    def __init__(self, size: int):
        self.values = torch.zeros(size, size, dtype=torch.float64)
        bounds = [size * k // _BLOCKS for k in range(_BLOCKS + 1)]
        self.blocks = [slice(a, b) for a, b in pairwise(bounds)]

    def add(self, jacobian: Tensor, pool: ThreadPoolExecutor) -> None:
        """Add JᵀJ of rows [m, n]."""

        def add_block(block: slice) -> None:
            self.values[block, : block.stop].addmm_(jacobian[:, block].T, jacobian[:, : block.stop])

        list(pool.map(add_block, reversed(self.blocks)))

    def factor(self, shift: float, pool: ThreadPoolExecutor) -> Tensor | None:
        """Cholesky's factor of values + shift · 1, on and below the diagonal; None if that is not definite.

        By blocks in threads, since LAPACK's own would spin.
        """
        lower = self.values.clone()
        lower.diagonal().add_(shift)
        for number, block in enumerate(self.blocks):
            corner, failed = torch.linalg.cholesky_ex(lower[block, block])
            if failed:
                return None
            lower[block, block] = corner
            below = self.blocks[number + 1 :]

            def solve(rows: slice, block: slice = block, corner: Tensor = corner) -> None:
                lower[rows, block] = torch.linalg.solve_triangular(
                    corner.mT, lower[rows, block], upper=True, left=False
                )

            def subtract(rows: slice, block: slice = block) -> None:
                columns = slice(block.stop, rows.stop)
                lower[rows, columns].addmm_(lower[rows, block], lower[columns, block].mT, alpha=-1)

            list(pool.map(solve, below))
            list(pool.map(subtract, reversed(below)))
        return lower

    def quadratic(self, vector: Tensor) -> float:
        """vᵀ A v."""
        total = 0.0
        for block in self.blocks:
            rows = self.values[block, : block.stop] @ vector[: block.stop]
            inside = self.values[block, block] @ vector[block]
            total += float(vector[block] @ (2 * rows - inside))
        return total


class LevenbergMarquardt:
    """See `loop.Optimizer`; the frames' descriptors must be stored with their derivatives.

    Args:
        options: section `training` of the configuration, with this optimizer.
        seed: of the run.
        model: whose parameters are trained in place.
        loss: what is minimized.
        processes: among which a batch is divided; they hold the same weights.
        num_frames: of the training set.
    """

    advice = "raise training.optimizer.damping"

    def __init__(
        self,
        options: TrainingConfig,
        seed: int,
        model: BPNN,
        loss: Loss,
        processes: Processes,
        num_frames: int,
    ):
        assert isinstance(options.optimizer, LevenbergMarquardtConfig)
        self.options, self.seed = options.optimizer, seed
        self.model, self.loss, self.processes = model, loss, processes
        self.batch_size = batch_size(options, num_frames)
        self.parameters = list(model.parameters())
        self.native = NativeBPNN(model, 1)
        self.threads = options.threads or processes.threads
        self.pool = ThreadPoolExecutor(self.threads)
        self.matrix = NormalMatrix(check_model(model))
        self.weight = 0.0  # of everything in the average so far
        self.damping = self.options.damping
        self.length = 0.0

    @property
    def weights(self) -> Sequence[Tensor]:
        """What is validated and exported: the parameters."""
        return [parameter.detach() for parameter in self.parameters]

    def report(self) -> dict[str, float]:
        """Columns of metrics.csv."""
        return {"learning_rate": self.length, "damping": self.damping}

    def step(self, batches: Sequence[Batch], num_frames: int, step: int, fraction: float) -> float:
        """One step; returns the sum of the losses of the batch's frames before it."""
        before, gradient, matrix = self._differentiate(batches, num_frames, step)
        self._remember(matrix, step)
        final = self.options.final_step
        self.length = final + (self.options.step - final) * 0.5 * (1 + math.cos(math.pi * min(fraction, 1.0)))
        move = self.length * self._solve(gradient)
        trained = [parameter.detach().clone() for parameter in self.parameters]
        self._assign([a + b for a, b in zip(trained, self._split(move))])
        after = self._loss(batches, num_frames)
        if not after < before:
            self._assign(trained)
        self._adapt(before - after, -float(gradient @ move) - matrix.quadratic(move))
        return before * num_frames

    def _differentiate(
        self, batches: Sequence[Batch], num_frames: int, step: int
    ) -> tuple[float, Tensor, NormalMatrix]:
        """Mean loss of the whole batch, its gradient, and JᵀJ."""
        matrix = NormalMatrix(len(self.matrix.values))
        sums = torch.zeros(1 + len(matrix.values), dtype=torch.float64)
        places = list(self.processes.share(num_frames))
        tasks = [(batches[k : k + _FRAMES], places[k : k + _FRAMES]) for k in range(0, len(places), _FRAMES)]
        rows: list[Tensor] = []
        for found in self._map(lambda task: self._differentiate_frames(*task, step), tasks):
            sums += found[0]
            rows.append(found[1])
            if sum(len(some) for some in rows) >= _ROWS:
                matrix.add(torch.cat(rows) / math.sqrt(num_frames), self.pool)
                rows.clear()
        if rows:
            matrix.add(torch.cat(rows) / math.sqrt(num_frames), self.pool)
        self.processes.sum(matrix.values)
        self.processes.sum(sums)
        return float(sums[0]) / num_frames, sums[1:] / num_frames, matrix

    def _map(self, function: Callable[[_Task], _Found], tasks: Sequence[_Task]) -> Iterator[_Found]:
        """Results in order; no more of them in memory than threads work on."""
        for start in range(0, len(tasks), self.threads):
            yield from self.pool.map(function, tasks[start : start + self.threads])

    def _differentiate_frames(
        self, batches: Sequence[Batch], places: Sequence[int], step: int
    ) -> tuple[Tensor, Tensor]:
        """Sum of the losses of some frames and its gradient, [1 + parameters], and the weighted rows of their
        Jacobian. Their places in the batch choose the atoms."""
        batch = join(batches)
        module = StoredModule(self.native, batch.stored)
        losses = self.loss(evaluate(module, batch.graph, self.model.couple, create_graph=True), batch).sum()
        gradients = torch.autograd.grad(losses, self.parameters, materialize_grads=True)
        sums = torch.cat([losses.detach().view(1), *(gradient.reshape(-1) for gradient in gradients)])
        atoms, weights = self._choose(batch, places, step)
        rows = model_rows(self.model, batch, atoms, virial=keys.VIRIAL in self.loss.weights)
        return sums, rows * weights.sqrt().unsqueeze(1)

    def _choose(self, batch: Batch, places: Sequence[int], step: int) -> tuple[Tensor, Tensor]:
        """Atoms whose forces are taken, and the weight in the loss of the square of every row's residual."""
        weights = {
            name: weight / self.loss.sigmas[name] ** 2 * batch.present[name]
            for name, weight in self.loss.weights.items()
        }
        of_rows = [weights.get(keys.ENERGY, torch.zeros(len(places), dtype=torch.float64))]
        if keys.VIRIAL in weights:
            of_strains = torch.tensor([1 if a == b else 2 for a, b in STRAINS], dtype=torch.float64)
            of_rows.append(torch.outer(weights[keys.VIRIAL] / 9, of_strains).view(-1))
        atoms, first = [np.empty(0, dtype=np.int64)], 0
        for place, size, weight in zip(
            places,
            batch.num_atoms.long().tolist(),
            weights.get(keys.FORCES, torch.zeros(len(places))).tolist(),
        ):
            count = max(1, round(self.options.force_fraction * size)) if weight else 0
            chosen = np.random.default_rng([self.seed, step, place]).permutation(size)[:count]
            atoms.append(first + np.sort(chosen))
            of_rows.append(torch.full((3 * count,), weight / (3 * max(count, 1)), dtype=torch.float64))
            first += size
        return torch.from_numpy(np.concatenate(atoms)), torch.cat(of_rows)

    def _remember(self, matrix: NormalMatrix, step: int) -> None:
        """Take the matrix of a batch into the average, which forgets the random start sooner."""
        memory = min(self.options.memory, (step + 1) / (step + 10))
        self.matrix.values.mul_(memory).add_(matrix.values, alpha=1 - memory)
        self.weight = memory * self.weight + 1 - memory

    def _solve(self, gradient: Tensor) -> Tensor:
        """The step of full length."""
        mean = float(self.matrix.values.diagonal().mean())
        while (factor := self.matrix.factor(self.damping * mean, self.pool)) is None:
            self.damping *= 10  # round-off made it indefinite
        return -0.5 * self.weight * torch.cholesky_solve(gradient.unsqueeze(1), factor).squeeze(1)

    def _adapt(self, found: float, predicted: float) -> None:
        gain = found / predicted if predicted > 0 and math.isfinite(found) else -1.0
        if gain < _LOW_GAIN:
            self.damping *= _RAISE
        elif gain > _HIGH_GAIN:
            self.damping = max(self.damping / _LOWER, _SMALLEST_DAMPING)

    def _loss(self, batches: Sequence[Batch], num_frames: int) -> float:
        """Mean loss of the whole batch with the parameters that the model has now."""

        def of_frames(batches: Sequence[Batch]) -> float:
            batch = join(batches)
            module = StoredModule(self.native, batch.stored)
            return float(self.loss(evaluate(module, batch.graph, self.model.couple), batch).sum())

        tasks = [batches[k : k + _FRAMES] for k in range(0, len(batches), _FRAMES)]
        total = torch.tensor([sum(self._map(of_frames, tasks))], dtype=torch.float64)
        return float(self.processes.sum(total)) / num_frames

    def _split(self, vector: Tensor) -> list[Tensor]:
        parts = vector.split([parameter.numel() for parameter in self.parameters])
        return [part.view_as(parameter) for part, parameter in zip(parts, self.parameters)]

    def _assign(self, values: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for parameter, value in zip(self.parameters, values):
                parameter.copy_(value)

    def epoch_ended(self, improved: bool) -> None:
        """Nothing depends on it."""

    def state(self) -> dict[str, Any]:
        """What a restart needs beside the weights."""
        lower = torch.ones_like(self.matrix.values, dtype=torch.bool).tril()
        return {"matrix": self.matrix.values[lower], "weight": self.weight, "damping": self.damping}

    def load(self, state: dict[str, Any], weights: Sequence[Tensor]) -> None:
        """Continue from a state and its `weights`."""
        lower = torch.ones_like(self.matrix.values, dtype=torch.bool).tril()
        self.matrix.values[lower] = state["matrix"]
        self.weight, self.damping = state["weight"], state["damping"]


def check_model(model: nn.Module) -> int:
    """The number of parameters of a model that can be trained; raises ConfigError for one that cannot."""
    name = "optimizer levenberg_marquardt"
    if not isinstance(model, BPNN) or model.couple != {"kind": "sum"}:
        raise ConfigError(
            f"{name} trains networks with one energy per atom, but the couple of this model is "
            f"{model.couple}; take optimizer adamw."
        )
    count = sum(parameter.numel() for parameter in model.parameters())
    if count > MAX_PARAMETERS:
        raise ConfigError(
            f"{name} takes at most {MAX_PARAMETERS:,} parameters, because it factors a matrix with so many "
            f"rows, but the model has {count:,}; take smaller networks, or optimizer adamw."
        )
    return count
