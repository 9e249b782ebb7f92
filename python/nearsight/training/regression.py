"""Fitting linear models: the loss, which is quadratic in their coefficients, is minimized in one step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from nearsight import keys
from nearsight.models.bpnn import BPNN
from nearsight.models.linear import Triangle, bayesian_ridge
from nearsight.models.native import NativeBPNN
from nearsight.training.batches import Batch, join
from nearsight.training.config import RegressionConfig
from nearsight.training.logbook import Logbook
from nearsight.training.loss import Loss
from nearsight.training.processes import Processes

_ROWS = 3  # per column and block: the triangle is reduced together with so many rows at once
_VIRIAL = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))


class Regression:
    """See `loop.Optimizer`. Its one step sees the whole training set and solves for the coefficients.

    Args:
        options: section `training.regression` of the configuration.
        model: linear, whose coefficients are set in place.
        module: its native training module.
        loss: what is minimized, together with the prior.
        processes: among which the frames are divided; each reduces its rows, all solve.
        logbook: hears of the result.
        num_frames: of the training set.
        bias: whether every species has a constant beside its features.
        threads: that divide the frames among them.
    """

    advice = "look at the training set"

    def __init__(
        self,
        options: RegressionConfig,
        model: BPNN,
        module: NativeBPNN,
        loss: Loss,
        processes: Processes,
        logbook: Logbook,
        *,
        num_frames: int,
        bias: bool,
        threads: int,
    ):
        self.options, self.model, self.module = options, model, module
        self.loss, self.processes, self.logbook = loss, processes, logbook
        self.batch_size, self.bias, self.threads = num_frames, bias, threads
        with torch.no_grad():  # features as they are
            self.model.output_scale.fill_(1.0)
            for network in self.model.networks:
                network.shift.fill_(0.0)
                network.scale.fill_(1.0)

    @property
    def weights(self) -> Sequence[Tensor]:
        """What is validated and exported: the coefficients."""
        return list(self.model.parameters())

    def step(self, batches: Sequence[Batch], num_frames: int, step: int, fraction: float) -> float:
        """Solve; returns the loss summed over all frames."""
        degrees = self._degrees()
        before = torch.get_num_threads()
        torch.set_num_threads(1)  # threads of linear algebra spin, and are slow where cores are shared
        try:
            whole = Triangle(degrees.numel())
            for part in self._triangles(batches, degrees.numel()):
                whole.add(*part)
            fit = bayesian_ridge(whole, degrees, self.options.smoothness, self.options.ridge)
        finally:
            torch.set_num_threads(before)
        self._assign(fit.coefficients)
        self.logbook.say(
            f"Solved {whole.num_rows:,} equations for {degrees.numel():,} coefficients, of which the data "
            f"determine {fit.effective:.0f}; ridge {fit.ridge:.2g}."
        )
        return fit.square_error

    def _degrees(self) -> Tensor:
        """Degrees of all columns: the features of every species, then the constants."""
        of_species = [self.model.descriptor.degrees(symbol) for symbol in self.model.species]
        return torch.cat([*of_species, torch.zeros(len(of_species) * self.bias, dtype=torch.float64)])

    def _assign(self, coefficients: Tensor) -> None:
        sizes = [network.columns.numel() for network in self.model.networks]
        features, constants = coefficients.split([sum(sizes), coefficients.numel() - sum(sizes)])
        with torch.no_grad():
            for k, (network, part) in enumerate(zip(self.model.networks, features.split(sizes))):
                network.layers[0].weight.copy_(part)
                network.layers[0].bias.fill_(float(constants[k]) if self.bias else 0.0)

    # ---- rows -----------------------------------------------------------------------------------

    def _triangles(self, batches: Sequence[Batch], columns: int) -> list[tuple[Tensor, int]]:
        """Factor and number of rows of the frames of every thread of every process."""

        def reduce(part: range) -> tuple[Tensor, int]:
            triangle = Triangle(columns)
            for rows in self._blocks([batches[number] for number in part], _ROWS * columns):
                triangle.add(rows)
            return triangle.factor, triangle.num_rows

        parts = [range(thread, len(batches), self.threads) for thread in range(self.threads)]
        with ThreadPoolExecutor(self.threads) as pool:
            mine = list(pool.map(reduce, parts))
        return [part for process in self.processes.gather(mine) for part in process]

    def _blocks(self, batches: Sequence[Batch], size: int) -> Iterator[Tensor]:
        """Weighted rows (X, y) of the frames, in blocks of at least `size`."""
        some: list[Batch] = []
        for batch in batches:
            some.append(batch)
            if sum(3 * part.graph.num_atoms + 7 for part in some) >= size:
                yield self._rows(join(some))
                some = []
        if some:
            yield self._rows(join(some))

    def _rows(self, batch: Batch) -> Tensor:
        """Rows (X, y) whose squared errors sum to the loss of the batch's frames."""
        graph, frames = batch.graph, torch.arange(batch.graph.num_frames)
        energy, forces, virial = self.module.descriptor.design_rows(graph, num_threads=1)
        of_atoms = graph.frame.repeat_interleave(3)
        virials = torch.stack([batch.targets[keys.VIRIAL][:, a, b] for a, b in _VIRIAL], dim=1)
        mixed = torch.tensor([1.0, 1.0, 1.0, 2.0, 2.0, 2.0], dtype=torch.float64) / 9  # xy stands for yx too
        shares = 1 / (3 * batch.num_atoms)
        parts = (  # name, X, y, frame and share of each row
            (keys.ENERGY, energy, batch.targets[keys.ENERGY], frames, torch.ones(1)),
            (keys.FORCES, forces, batch.targets[keys.FORCES].flatten(), of_atoms, shares[of_atoms]),
            (keys.VIRIAL, virial, virials.flatten(), frames.repeat_interleave(6), mixed.repeat(len(frames))),
        )
        return torch.cat([self._weighted(batch, *part) for part in parts if part[0] in self.loss.weights])

    def _weighted(
        self, batch: Batch, name: str, x: Tensor, y: Tensor, frame: Tensor, share: Tensor
    ) -> Tensor:
        weight = torch.sqrt(self.loss.weights[name] * batch.present[name][frame] * share)
        constants = torch.zeros(len(x), len(self.model.species) * self.bias, dtype=torch.float64)
        if self.bias and name == keys.ENERGY:
            one = torch.ones(1, dtype=torch.float64)
            constants.index_put_((batch.graph.frame, batch.graph.species), one, accumulate=True)
        rows = torch.cat([x, constants, y.unsqueeze(1)], dim=1)
        return (rows * (weight / self.loss.sigmas[name]).unsqueeze(1))[weight > 0]

    # ---- the rest of the protocol ---------------------------------------------------------------

    def epoch_ended(self, improved: bool) -> None:
        """There is nothing to adapt."""

    def report(self) -> dict[str, float]:
        """Columns of metrics.csv: none."""
        return {}

    def state(self) -> dict[str, Any]:
        """What a restart needs beside the weights: nothing."""
        return {}

    def load(self, state: dict[str, Any], weights: Sequence[Tensor]) -> None:
        """Continue from the coefficients, which the model has already."""
