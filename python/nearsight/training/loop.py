"""The training loop: AdamW, schedule, moving average of the weights, validation, checkpoints.

Determinism: the order of the batches is a function of the seed and the epoch, the checkpoint holds everything
else, so that on CPU a run that was interrupted and continued gives the same bits as one that was not. Only a
time limit (`max_minutes`) that is reached before the last epoch makes a run depend on the clock.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nearsight import keys
from nearsight.couple import Results, evaluate
from nearsight.data import Frame, ReferenceEnergies
from nearsight.errors import NearsightError
from nearsight.training.batches import Batch, batch_order, join
from nearsight.training.checkpoint import BEST, FOLDER, LAST, write_checkpoint
from nearsight.training.config import Config
from nearsight.training.logbook import Logbook
from nearsight.training.loss import Loss
from nearsight.training.metrics import Metrics
from nearsight.training.schedule import LearningRate


class Interrupted(NearsightError):
    """The run was stopped by a signal; its last checkpoint is complete."""

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.number = number
        self.exit_code = 128 + number


@dataclass
class State:
    """Where a run is. `batches` of epoch `epoch` are done; `loss_sum` is over their frames."""

    epoch: int = 1
    batches: int = 0
    step: int = 0
    loss_sum: float = 0.0
    best_loss: float = math.inf
    best_epoch: int = 0
    elapsed: float = 0.0


@dataclass(frozen=True)
class TrainingData:
    """Batches of one frame each, ready to be joined, with the frames that they were made of."""

    training: list[Batch]
    validation: list[Batch]
    validation_frames: list[Frame]
    reference: ReferenceEnergies


class Trainer:
    """Trains a model in place; afterwards its weights are the averaged ones of the best epoch.

    Args:
        config: of the run.
        model: from `build_model`, with fitted statistics.
        module: its `training_module`.
        data: training and validation sets.
        loss: what is minimized.
        logbook: of the run directory.
        facts: what else goes into every checkpoint (species, reference energies, hashes of the data, …).
    """

    def __init__(
        self,
        config: Config,
        model: nn.Module,
        module: nn.Module,
        data: TrainingData,
        loss: Loss,
        logbook: Logbook,
        facts: dict[str, Any],
    ):
        self.config, self.options = config, config.training
        self.model, self.module, self.data = model, module, data
        self.loss, self.logbook, self.facts = loss, logbook, facts
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=self.options.learning_rate, weight_decay=self.options.weight_decay
        )
        self.learning_rate = LearningRate(self.options.schedule)
        self.parameters = list(model.parameters())
        self.average = [parameter.detach().clone() for parameter in self.parameters]
        self.state = State()
        self.started = time.perf_counter()

    # ---- state ----------------------------------------------------------------------------------

    def load(self, content: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.model.load_state_dict(content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.learning_rate.load(content["learning_rate"])
        self.average = [tensor.clone() for tensor in content["average"]]
        self.state = State(**content["state"])
        self.started = time.perf_counter() - self.state.elapsed

    def save(self, name: str) -> None:
        """Write a checkpoint of the present state."""
        self.state.elapsed = time.perf_counter() - self.started
        content = {
            "config": self.config.model_dump(mode="json", by_alias=True),
            "state": asdict(self.state),
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "learning_rate": self.learning_rate.state(),
            **self.facts,
        }
        write_checkpoint(self.logbook.folder / FOLDER / name, content)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the model has the averaged weights."""
        trained = [parameter.detach().clone() for parameter in self.parameters]
        _assign(self.parameters, self.average)
        try:
            yield
        finally:
            _assign(self.parameters, trained)

    def fraction(self) -> float:
        """How much of the run is over: of its epochs or of its minutes, whichever is further."""
        steps = self.options.epochs * math.ceil(len(self.data.training) / self.options.batch_size)
        done = self.state.step / steps
        if self.options.max_minutes is not None:
            done = max(done, (time.perf_counter() - self.started) / (60 * self.options.max_minutes))
        return done

    def why_finished(self) -> str | None:
        """The reason to stop, or None."""
        if self.state.epoch > self.options.epochs:
            return f"all {self.options.epochs} epochs are done"
        if self.options.max_minutes is not None and self.fraction() >= 1:
            return f"the limit of {self.options.max_minutes:g} minutes is reached"
        patience = self.options.early_stopping
        if patience and self.state.epoch - 1 - self.state.best_epoch >= patience:
            return f"the validation loss has not improved for {patience} epochs"
        return None

    # ---- run ------------------------------------------------------------------------------------

    def run(self) -> str:
        """Train until the end and return the reason for it.

        Raises:
            Interrupted: a signal came; the last checkpoint is complete.
            NearsightError: the loss is not finite, or the disk is full.
        """
        self.logbook.begin_epochs(self.state.epoch - 1)
        with _signals() as received, self.logbook.progress() as show:
            if self.state.step == 0:
                self.save(LAST)
            while not (reason := self.why_finished()):
                self._train_epoch(received, show)
                if received:
                    self.save(LAST)
                    raise Interrupted(f"Interrupted in epoch {self.state.epoch}.", received[0])
                self._end_epoch()
        return reason

    def _train_epoch(self, received: Sequence[int], show: Callable[[str, float], None]) -> None:
        order = batch_order(
            len(self.data.training), self.options.batch_size, self.config.seed, self.state.epoch
        )
        for numbers in order[self.state.batches :]:
            self._train_batch(join([self.data.training[number] for number in numbers]))
            show(f"epoch {self.state.epoch}", self.fraction())
            if received or self.fraction() >= 1:
                return

    def _train_batch(self, batch: Batch) -> None:
        rate = self.options.learning_rate * self.learning_rate.factor(self.state.step, self.fraction())
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        results = evaluate(self.module, batch.graph, self.model.couple, create_graph=True)
        losses = self.loss(results, batch)
        losses.mean().backward(inputs=self.parameters)  # not of the edge vectors: a third of the time
        total = float(losses.detach().sum())
        self._check_finite(total)
        if self.options.gradient_clipping is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.options.gradient_clipping)
        self.optimizer.step()
        self._average()
        self.state.step += 1
        self.state.batches += 1
        self.state.loss_sum += total

    def _check_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise NearsightError(
                f"The loss is not finite in epoch {self.state.epoch}; lower training.learning_rate, and look "
                "for outliers in the data. The checkpoints are of earlier epochs."
            )

    def _average(self) -> None:
        """Exponential moving average, faster in the first steps so that it forgets the random start."""
        decay = min(self.options.ema_decay, self.state.step / (self.state.step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.parameters, 1 - decay)

    def _end_epoch(self) -> None:
        with self.averaged():
            validation_loss, metrics = self.validate()
        self._check_finite(validation_loss)
        self.learning_rate.epoch_ended(validation_loss)
        is_best = validation_loss < self.state.best_loss
        if is_best:
            self.state.best_loss, self.state.best_epoch = validation_loss, self.state.epoch
        frames = min(self.state.batches * self.options.batch_size, len(self.data.training))
        row = {
            "epoch": self.state.epoch,
            "step": self.state.step,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "training_loss": self.state.loss_sum / frames,
            "validation_loss": validation_loss,
            "elapsed": time.perf_counter() - self.started,
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
        size = self.options.batch_size
        for start in range(0, len(self.data.validation), size):
            batch = join(self.data.validation[start : start + size])
            results = evaluate(self.module, batch.graph, self.model.couple)
            total += float(self.loss(results, batch).sum())
            frames = self.data.validation_frames[start : start + size]
            for frame, prediction in zip(frames, split_results(results, frames, self.data.reference)):
                metrics.add(frame, prediction)
        return total / len(self.data.validation), metrics


def split_results(
    results: Results, frames: Sequence[Frame], reference: ReferenceEnergies
) -> list[dict[str, Any]]:
    """Per frame {energy with reference energies, forces, virial} of the results of a batch, as numpy."""
    forces = results.forces.split([len(frame) for frame in frames])
    return [
        {
            keys.ENERGY: float(results.energy[number]) + reference.total(frame.symbols),
            keys.FORCES: forces[number].numpy(),
            keys.VIRIAL: results.virial[number].numpy(),
        }
        for number, frame in enumerate(frames)
    ]


def _assign(parameters: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for parameter, value in zip(parameters, values):
            parameter.copy_(value)


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
