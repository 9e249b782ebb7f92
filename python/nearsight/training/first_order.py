"""First-order training: Adam with a schedule, clipped gradients and a moving average of the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nearsight import keys
from nearsight.couple import evaluate, present_couple
from nearsight.training.batches import Batch, join
from nearsight.training.config import ShampooAdamConfig, TrainingConfig
from nearsight.training.devices import moved
from nearsight.training.loss import Loss
from nearsight.training.processes import Processes
from nearsight.training.schedule import LearningRate
from nearsight.training.shampoo_adam import ShampooAdam
from nearsight.training.stored import with_stored


class FirstOrder:
    """See `loop.Optimizer`.

    Args:
        options: section `training` of the configuration.
        model: whose parameters are trained in place.
        module: its `training_module`.
        loss: what is minimized.
        processes: among which a batch is divided; they hold the same weights.
    """

    advice = "lower training.learning_rate"

    def __init__(
        self, options: TrainingConfig, model: nn.Module, module: nn.Module, loss: Loss, processes: Processes
    ):
        self.options, self.model, self.module = options, model, module
        self.loss, self.processes = loss, processes
        self.batch_size = options.batch_size
        self.parameters = list(model.parameters())
        self.device = self.parameters[0].device
        self.adam = _make_adam(options, self.parameters)
        self.schedule = LearningRate(options.schedule)
        self.average = [parameter.detach().clone() for parameter in self.parameters]

    @property
    def weights(self) -> Sequence[Tensor]:
        """What is validated and exported: the moving average."""
        return self.average

    def report(self) -> dict[str, float]:
        """Columns of metrics.csv."""
        return {"learning_rate": self.adam.param_groups[0]["lr"]}

    def step(self, batches: Sequence[Batch], num_frames: int, step: int, fraction: float) -> float:
        """One step; returns the sum of the losses of the batch's frames."""
        for group in self.adam.param_groups:
            group["lr"] = self.options.learning_rate * self.schedule.factor(step, fraction)
        total = self._gradient(batches, num_frames)
        if self.options.gradient_clipping is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.options.gradient_clipping)
        self.adam.step()
        self._average(step + 1)
        return total

    def _gradient(self, batches: Sequence[Batch], num_frames: int) -> float:
        """Set the gradients of the mean loss of the whole batch, and return the sum of its losses."""
        total = torch.zeros(1, dtype=torch.float64, device=self.device)
        if batches:
            batch = join(batches, self.device)
            module = with_stored(self.module, batch.stored) if batch.stored else self.module
            layers = self.model.num_interactions if keys.BORN_CHARGES in self.loss.weights else 0
            couple = present_couple(self.model)
            results = evaluate(module, batch.graph, couple, True, batch.charged, layers)
            losses = self.loss(results, batch).sum()
            total[0] = losses.detach()
            gradients = torch.autograd.grad(losses / num_frames, self.parameters, materialize_grads=True)
        else:
            gradients = tuple(torch.zeros_like(parameter) for parameter in self.parameters)
        if self.processes.size > 1:
            flat = self.processes.sum(torch.cat([total, *(gradient.reshape(-1) for gradient in gradients)]))
            total, *parts = flat.split([1, *(gradient.numel() for gradient in gradients)])
            gradients = tuple(part.view_as(like) for part, like in zip(parts, gradients))
        for parameter, gradient in zip(self.parameters, gradients):
            parameter.grad = gradient
        return float(total)

    def _average(self, steps: int) -> None:
        """Exponential moving average, faster in the first steps so that it forgets the random start."""
        decay = min(self.options.ema_decay, steps / (steps + 10))
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.parameters, 1 - decay)

    def epoch_ended(self, improved: bool) -> None:
        """Let the schedule see how an epoch was."""
        self.schedule.epoch_ended(improved)

    def state(self) -> dict[str, Any]:
        """What a restart needs beside the weights."""
        return {"adam": self.adam.state_dict(), "schedule": self.schedule.state()}

    def load(self, state: dict[str, Any], weights: Sequence[Tensor]) -> None:
        """Continue from a state and its `weights`."""
        self.adam.load_state_dict(moved(state["adam"], self.device))
        self.schedule.load(state["schedule"])
        self.average = [tensor.to(self.device, copy=True) for tensor in weights]


def _make_adam(options: TrainingConfig, parameters: Sequence[Tensor]) -> torch.optim.Optimizer:
    settings = options.optimizer.model_dump(exclude={"kind"})
    settings |= {"lr": options.learning_rate, "weight_decay": options.weight_decay}
    if isinstance(options.optimizer, ShampooAdamConfig):
        # Its matrix products are a tenth of the time of a step in double precision.
        dtype = torch.float32 if options.precision == "mixed" else None
        return ShampooAdam(parameters, dtype=dtype, **settings)
    return torch.optim.AdamW(parameters, fused=True, **settings)
