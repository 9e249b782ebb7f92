"""Learning-rate schedules: a factor on the configured learning rate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from nearsight.training.config import CosineSchedule, LinearSchedule, PlateauSchedule, Schedule


@dataclass
class LearningRate:
    """Linear warm-up over the first steps, times the schedule.

    Attributes:
        config: one of the configured schedules.
        stale, reduced: of the plateau: epochs without improvement, and the factor reached.
    """

    config: Schedule
    stale: int = 0
    reduced: float = 1.0

    def factor(self, step: int, fraction: float) -> float:
        """The factor of a step.

        Args:
            step: steps done before, from 0.
            fraction: how much of the run is over, 0 to 1.
        """
        warmup = min(1.0, (step + 1) / (self.config.warmup_steps + 1))
        fraction = min(fraction, 1.0)
        if isinstance(self.config, CosineSchedule):
            left = 0.5 * (1 + math.cos(math.pi * fraction))
        elif isinstance(self.config, LinearSchedule):
            left = 1 - fraction
        else:
            return warmup * self.reduced
        return warmup * (left + (1 - left) * self.config.final_fraction)

    def epoch_ended(self, improved: bool) -> None:
        """Let the plateau see whether an epoch lowered the validation loss."""
        if not isinstance(self.config, PlateauSchedule):
            return
        self.stale = 0 if improved else self.stale + 1
        if self.stale >= self.config.patience:
            self.reduced, self.stale = self.reduced * self.config.factor, 0

    def state(self) -> dict[str, Any]:
        """What a restart needs."""
        return {"stale": self.stale, "reduced": self.reduced}

    def load(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        self.stale, self.reduced = state["stale"], state["reduced"]
