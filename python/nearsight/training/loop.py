"""The training loop: epochs of batches, validation, checkpoints, around an optimizer.

Determinism: the order of the batches is a function of the seed and the epoch, the checkpoint holds everything
else, so that on CPU a run that was interrupted and continued gives the same bits as one that was not. Only a
time limit (`max_minutes`) that is reached before the last epoch makes a run depend on the clock.

Several processes do the same steps: each works on its frames of every batch, the clock is that of the first,
and a signal to any of them stops all after the same batch.
"""

from __future__ import annotations

import gc
import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from nearsight import keys
from nearsight.couple import Results, evaluate, present_couple
from nearsight.data import Frame, ReferenceEnergies
from nearsight.errors import NearsightError
from nearsight.training.batches import Batch, batch_order, born_layers, join
from nearsight.training.checkpoint import BEST, FOLDER, LAST, write_checkpoint
from nearsight.training.config import Config
from nearsight.training.devices import CPU, moved
from nearsight.training.logbook import Logbook
from nearsight.training.loss import Loss
from nearsight.training.metrics import Metrics
from nearsight.training.processes import Processes

_SECONDS_BETWEEN_LOOKS = 0.1


class Optimizer(Protocol):
    """What the loop needs of an optimizer; it trains the parameters of the model in place.

    Attributes:
        batch_size: frames of a batch, over all processes.
        weights: values of the parameters that are validated and exported.
        loss: what is minimized; set anew when the second stage of the run begins.
        advice: what to do when the loss is not finite.
    """

    batch_size: int
    weights: Sequence[Tensor]
    loss: Loss
    advice: str

    def step(self, batches: Sequence[Batch], num_frames: int, step: int, fraction: float) -> float:
        """Do a step and return the sum of the losses of the batch's frames before it.

        Args:
            batches: this process's frames of the batch.
            num_frames: of the batch over all processes.
            step: steps done before, from 0.
            fraction: how much of the run is over, 0 to 1.
        """

    def epoch_ended(self, improved: bool) -> None:
        """Hear of the end of an epoch, and whether its validation loss is the lowest so far in its stage."""

    def report(self) -> dict[str, float]:
        """Columns of metrics.csv."""

    def state(self) -> dict[str, Any]:
        """What a restart needs beside the weights."""

    def load(self, state: dict[str, Any], weights: Sequence[Tensor]) -> None:
        """Continue from a state and its `weights`; the model has its parameters already."""


class Interrupted(NearsightError):
    """The run was stopped by a signal; its last checkpoint is complete."""

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.number = number
        self.exit_code = 128 + number


@dataclass
class State:
    """Where a run is. `batches` of epoch `epoch` are done; `loss_sum` is over their frames.

    `stage` is the number of the loss, from 0; the best epoch is that of the stage.
    """

    stage: int = 0
    epoch: int = 1
    batches: int = 0
    step: int = 0
    loss_sum: float = 0.0
    best_loss: float = math.inf
    best_epoch: int = 0
    elapsed: float = 0.0


@dataclass(frozen=True)
class TrainingData:
    """What this process works on: batches of one frame each, ready to be joined, by the frames' numbers."""

    training: dict[int, Batch]
    validation: dict[int, Batch]
    num_training: int
    validation_frames: Sequence[Frame]
    reference: ReferenceEnergies


class Trainer:
    """Trains a model in place; the best weights are in the checkpoint.

    Args:
        config: of the run.
        model: from `build_model`, with fitted statistics.
        module: its `training_module`.
        optimizer: of the model's parameters.
        data: training and validation sets.
        losses: what is minimized in each stage.
        logbook: of the run directory.
        processes: that train together.
        facts: what else goes into every checkpoint (species, reference energies, hashes of the data, …).
    """

    def __init__(
        self,
        config: Config,
        model: nn.Module,
        module: nn.Module,
        optimizer: Optimizer,
        data: TrainingData,
        losses: Sequence[Loss],
        logbook: Logbook,
        processes: Processes,
        facts: dict[str, Any],
    ):
        self.config, self.options = config, config.training
        self.model, self.module, self.data = model, module, data
        self.optimizer, self.losses, self.logbook, self.facts = optimizer, losses, logbook, facts
        self.processes = processes
        self.parameters = list(model.parameters())
        self.device = self.parameters[0].device
        self.state = State()
        self.started = time.perf_counter()
        self.received: Sequence[int] = ()
        self.stopping = False
        self.next_look = 0

    # ---- state ----------------------------------------------------------------------------------

    def load(self, content: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.model.load_state_dict(content["model"])
        self.optimizer.load(content["optimizer"], content["weights"])
        self.state = State(**content["state"])
        self.optimizer.loss = self.losses[self.state.stage]
        self.started = time.perf_counter() - self.state.elapsed

    def save(self, name: str) -> None:
        """Write a checkpoint of the present state."""
        if not self.processes.first:
            return
        content = {
            "config": self.config.model_dump(mode="json", by_alias=True),
            "state": asdict(self.state),
            "model": self.model.state_dict(),
            "weights": list(self.optimizer.weights),
            "optimizer": self.optimizer.state(),
            **self.facts,
        }
        write_checkpoint(self.logbook.folder / FOLDER / name, content)

    @contextmanager
    def final_weights(self) -> Iterator[None]:
        """Inside, the model has the weights that would be exported."""
        trained = [parameter.detach().clone() for parameter in self.parameters]
        _assign(self.parameters, self.optimizer.weights)
        try:
            yield
        finally:
            _assign(self.parameters, trained)

    def fraction(self) -> float:
        """How much of the run is over: of its epochs or of its minutes, whichever is further."""
        steps = self.options.epochs * math.ceil(self.data.num_training / self.optimizer.batch_size)
        done = self.state.step / steps
        if self.options.max_minutes is not None:
            done = max(done, self.state.elapsed / (60 * self.options.max_minutes))
        return done

    def why_finished(self) -> str | None:
        """The reason to stop, or None."""
        if self.state.epoch > self.options.epochs:
            return f"all {self.options.epochs} epochs are done"
        if self.options.max_minutes is not None and self.fraction() >= 1:
            return f"the limit of {self.options.max_minutes:g} minutes is reached"
        if self._stagnates() and self.state.stage == len(self.losses) - 1:
            return f"the validation loss has not improved for {self.options.early_stopping} epochs"
        return None

    def _stagnates(self) -> bool:
        patience = self.options.early_stopping
        return patience is not None and self.state.epoch - 1 - self.state.best_epoch >= patience

    # ---- run ------------------------------------------------------------------------------------

    def run(self) -> str:
        """Train until the end and return the reason for it.

        Raises:
            Interrupted: a signal came; the last checkpoint is complete.
            NearsightError: the loss is not finite, or the disk is full.
        """
        self.logbook.begin_epochs(self.state.epoch - 1)
        with _signals() as self.received, self.logbook.progress() as show, _frozen_garbage():
            if self.state.step == 0:
                self.save(LAST)
            while not (reason := self.why_finished()):
                self._change_stage()
                self._train_epoch(show)
                if self.stopping:
                    self.save(LAST)
                    everywhere = self.processes.gather(list(self.received))
                    number = next(number for numbers in everywhere for number in numbers)
                    raise Interrupted(f"Interrupted in epoch {self.state.epoch}.", number)
                self._end_epoch()
        return reason

    def _change_stage(self) -> None:
        """Begin the second stage if it is time for it, or if the first one would be stopped early.

        Losses of two stages are not comparable: the best epoch of the first one is forgotten.
        """
        second, state = self.options.loss.second_stage, self.state
        if second is None or state.stage > 0 or state.batches > 0:
            return
        if self.fraction() >= second.start or self._stagnates():
            state.stage, state.best_loss, state.best_epoch = 1, math.inf, state.epoch - 1
            self.optimizer.loss = self.losses[1]
            weights = ", ".join(f"{name} {weight:g}" for name, weight in self.losses[1].weights.items())
            self.logbook.say(f"The second stage begins: {weights}.")

    def _train_epoch(self, show: Callable[[str, float], None]) -> None:
        size = self.optimizer.batch_size
        order = batch_order(self.data.num_training, size, self.config.seed, self.state.epoch)
        for numbers in order[self.state.batches :]:
            self.train_batch(numbers)
            show(f"epoch {self.state.epoch}", self.fraction())
            if self.stopping or self.fraction() >= 1:
                return

    def train_batch(self, numbers: Sequence[int]) -> None:
        """One step on the frames with these numbers, of which this process does its share."""
        mine = [self.data.training[numbers[k]] for k in self.processes.share(len(numbers))]
        try:
            total = self.optimizer.step(mine, len(numbers), self.state.step, self.fraction())
        except torch.OutOfMemoryError as error:
            raise NearsightError(
                f"{self.device} has no memory left for a batch of {len(numbers)} frame(s); lower "
                f"training.batch_size, now {self.options.batch_size}, and continue with --restart auto."
            ) from error
        self._check_finite(total)
        self.state.step += 1
        self.state.batches += 1
        self.state.loss_sum += total
        if self.processes.size == 1 or self.state.step >= self.next_look:
            self._look_up()

    def _look_up(self) -> None:
        """See the clock and the signals, the same in all processes, which wait for each other here."""
        clock = time.perf_counter() - self.started if self.processes.first else 0.0
        news = self.processes.sum(torch.tensor([clock, float(bool(self.received))], dtype=torch.float64))
        self.state.elapsed, self.stopping = float(news[0]), bool(news[1])
        self.next_look = self.state.step + int(_SECONDS_BETWEEN_LOOKS * self.state.step / self.state.elapsed)

    def _check_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise NearsightError(
                f"The loss is not finite in epoch {self.state.epoch}; {self.optimizer.advice}, and look "
                "for outliers in the data. The checkpoints are of earlier epochs."
            )

    def _end_epoch(self) -> None:
        with self.final_weights():
            validation_loss, metrics = self.validate()
        self._look_up()
        self._check_finite(validation_loss)
        is_best = validation_loss < self.state.best_loss
        self.optimizer.epoch_ended(is_best)
        if is_best:
            self.state.best_loss, self.state.best_epoch = validation_loss, self.state.epoch
        frames = min(self.state.batches * self.optimizer.batch_size, self.data.num_training)
        row = {
            "epoch": self.state.epoch,
            "step": self.state.step,
            **self.optimizer.report(),
            "training_loss": self.state.loss_sum / frames,
            "validation_loss": validation_loss,
            "elapsed": self.state.elapsed,
        }
        for name, errors in metrics.targets.items():
            row |= {f"{name}_rmse": errors.rmse, f"{name}_mae": errors.mae}
        self.logbook.epoch(row, is_best)
        self.state.epoch, self.state.batches, self.state.loss_sum = self.state.epoch + 1, 0, 0.0
        if is_best:
            self.save(BEST)
        self.save(LAST)

    def validate(self) -> tuple[float, Metrics]:
        """Mean loss and errors on the validation set with the weights that the model has now."""
        metrics, total = Metrics(), 0.0
        for numbers in in_parts(self.data.validation, self.options.batch_size):
            batch = join([self.data.validation[number] for number in numbers], self.device)
            layers, couple = born_layers(batch, self.model), present_couple(self.model)
            results = evaluate(self.module, batch.graph, couple, charged=batch.charged, born_charges=layers)
            total += float(self.optimizer.loss(results, batch).sum())
            frames = [self.data.validation_frames[number] for number in numbers]
            for frame, prediction in zip(frames, split_results(results, frames, self.data.reference)):
                metrics.add(frame, prediction)
        everything = Metrics()
        parts = self.processes.gather((total, metrics))
        for _, part in parts:
            everything.merge(part)
        return sum(part for part, _ in parts) / len(self.data.validation_frames), everything


def in_parts(numbers: Iterable[int], size: int) -> list[list[int]]:
    """The numbers in lists of at most `size`."""
    everything = list(numbers)
    return [everything[start : start + size] for start in range(0, len(everything), size)]


def split_results(
    results: Results, frames: Sequence[Frame], reference: ReferenceEnergies
) -> list[dict[str, Any]]:
    """Per frame {energy with reference energies, forces, virial} of the results of a batch, as numpy, and
    charges that can be compared with those of the data, dipoles where nothing is periodic, Born charges."""
    results, sizes = moved(results, CPU), [len(frame) for frame in frames]
    forces = results.forces.split(sizes)
    found = [
        {
            keys.ENERGY: float(results.energy[number]) + reference.total(frame.symbols),
            keys.FORCES: forces[number].numpy(),
            keys.VIRIAL: results.virial[number].numpy(),
        }
        for number, frame in enumerate(frames)
    ]
    if results.charges is not None and results.physical_charges:
        for one, charges in zip(found, results.charges[:, 0].split(sizes)):
            one[keys.CHARGES] = charges.numpy()
    if results.dipole is not None:
        for one, frame, dipole in zip(found, frames, results.dipole):
            one |= {} if frame.pbc.any() else {keys.DIPOLE: dipole.numpy()}
    if results.born_charges is not None:
        for one, born_charges in zip(found, results.born_charges.split(sizes)):
            one[keys.BORN_CHARGES] = born_charges.numpy()
    return found


def _assign(parameters: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for parameter, value in zip(parameters, values):
            parameter.copy_(value)


@contextmanager
def _frozen_garbage() -> Iterator[None]:
    """Python's garbage collector leaves alone what is there already: looking through all of torch again and
    again takes some percent of the time of small steps."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM, so that the batch at hand is finished; a second one acts at once.

    Python delivers signals to the main thread only: in another one nothing is collected.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def handle(number: int, frame: Any) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
