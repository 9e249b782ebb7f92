"""Architectures: configuration and PyTorch module, which keeps docs/model_contract.md."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import nn

from nearsight.couple import LearnedNumbers
from nearsight.errors import ConfigError
from nearsight.models.ace import ACEConfig
from nearsight.models.ani import ANI, ANIConfig
from nearsight.models.bpnn import BPNN, BPNNConfig
from nearsight.models.descriptors import ACSFConfig
from nearsight.models.dispersion import DampingConfig, DispersionConfig
from nearsight.models.linear import LinearConfig
from nearsight.models.long_range import LongRangeConfig
from nearsight.models.mace import MACE
from nearsight.models.mace_config import MACEConfig
from nearsight.models.native import training_module
from nearsight.models.none import NoLocalEnergy
from nearsight.models.painn import PaiNN, PaiNNConfig
from nearsight.models.soap import SOAPConfig

__all__ = [
    "ANI",
    "BPNN",
    "MACE",
    "ACEConfig",
    "ACSFConfig",
    "ANIConfig",
    "BPNNConfig",
    "DampingConfig",
    "DispersionConfig",
    "LinearConfig",
    "LongRangeConfig",
    "MACEConfig",
    "ModelConfig",
    "NoLocalEnergy",
    "PaiNN",
    "PaiNNConfig",
    "SOAPConfig",
    "build_model",
    "training_module",
]

ModelConfig = Annotated[
    BPNNConfig | LinearConfig | MACEConfig | PaiNNConfig, Field(discriminator="architecture")
]


def build_model(
    config: ModelConfig, species: list[str], long_range: LongRangeConfig | None = None
) -> nn.Module:
    """Return an untrained module in float64, its weights drawn from torch's global random numbers.

    Raises:
        ValueError: the configuration does not fit the species.
        ConfigError: the architecture cannot have these charges.
    """
    if long_range is None:
        return config.build(species)
    if isinstance(config, LinearConfig) or (isinstance(config, BPNNConfig) and config.states > 1):
        raise ConfigError(
            "long_range needs a model with one trained energy: linear models, which are solved, and those of "
            "several states have no charges."
        )
    model = config.build(species, readouts=long_range.readouts())
    model.couple = long_range.couple(species)
    if long_range.learned:
        model.learned_numbers = LearnedNumbers({name: model.couple[name] for name in long_range.learned})
    return model
