"""Architectures: configuration and PyTorch module, which keeps docs/model_contract.md."""

from __future__ import annotations

from torch import nn

from nearsight.models.ani import ANI, ANIConfig
from nearsight.models.bpnn import BPNN, BPNNConfig
from nearsight.models.descriptors import ACSFConfig
from nearsight.models.native import training_module

__all__ = [
    "ANI",
    "BPNN",
    "ACSFConfig",
    "ANIConfig",
    "BPNNConfig",
    "ModelConfig",
    "build_model",
    "training_module",
]

ModelConfig = BPNNConfig  # a union discriminated by `architecture` as soon as there is a second one


def build_model(config: ModelConfig, species: list[str]) -> nn.Module:
    """Return an untrained module in float64, its weights drawn from torch's global random numbers.

    Raises:
        ValueError: the configuration does not fit the species.
    """
    return config.build(species)
