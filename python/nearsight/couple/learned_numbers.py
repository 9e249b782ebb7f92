"""Numbers of the species in the record of a couple, hardness and widths, that are trained with the model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

WIDEST = 1.5  # times the width where training begins; lattice sums are set up for this one before


class LearnedNumbers(nn.Module):
    """Hardness J = J° exp p and widths σ = σ° exp(b tanh(p / b)), b = ln `WIDEST`; parameters are the p.

    Args:
        start: J° in eV/e² and σ° in Å, by their names in the record.
    """

    def __init__(self, start: Mapping[str, Sequence[float]]):
        super().__init__()
        for name, numbers in start.items():
            self.register_buffer(f"{name}_start", torch.tensor(numbers, dtype=torch.float64))
            self.register_parameter(name, nn.Parameter(torch.zeros(len(numbers), dtype=torch.float64)))

    def forward(self) -> dict[str, Tensor]:
        """Return the numbers [species] by their names, differentiable."""
        bound = math.log(WIDEST)
        found = {}
        for name, p in self.named_parameters():
            exponent = bound * torch.tanh(p / bound) if name == "widths" else p
            found[name] = self.get_buffer(f"{name}_start") * torch.exp(exponent)
        return found


def present_couple(model: nn.Module) -> dict[str, Any]:
    """Return the record of the model's couple as `build_couple` takes it, learned numbers as tensors."""
    learned = getattr(model, "learned_numbers", None)
    return model.couple if learned is None else model.couple | learned()


def widest_couple(model: nn.Module) -> dict[str, Any]:
    """Return the record with the largest widths that training may come to."""
    learned = dict(getattr(model, "learned_numbers", nn.Module()).named_parameters())
    if "widths" not in learned:
        return model.couple
    return model.couple | {"widths": [WIDEST * width for width in model.couple["widths"]]}


@torch.no_grad()
def settle(model: nn.Module) -> nn.Module:
    """Make what was learned plain numbers of the record, and return the model."""
    if hasattr(model, "learned_numbers"):
        numbers = {name: values.tolist() for name, values in model.learned_numbers().items()}
        model.couple = model.couple | numbers
        del model.learned_numbers
    return model
