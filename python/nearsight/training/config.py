"""The configuration of a training run: typed and strict. `examples/train.yaml` explains every key."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from nearsight import keys
from nearsight.data import RUNNER_UNITS
from nearsight.data.frame import MAX_FORCE
from nearsight.models import BPNNConfig, DispersionConfig, LongRangeConfig, ModelConfig
from nearsight.models.descriptors import default_tag
from nearsight.units import ENERGY_UNITS, LENGTH_UNITS


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


Weight = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
LengthUnit = Literal[tuple(LENGTH_UNITS)]
EnergyUnit = Literal[tuple(ENERGY_UNITS)]


class KeysConfig(_Section):
    """Names of the labels in the data files."""

    energy: str = keys.FILE_KEYS[keys.ENERGY]
    forces: str = keys.FILE_KEYS[keys.FORCES]
    virial: str = keys.FILE_KEYS[keys.VIRIAL]
    stress: str = keys.FILE_KEYS["stress"]
    charges: str = keys.FILE_KEYS[keys.CHARGES]
    dipole: str = keys.FILE_KEYS[keys.DIPOLE]
    born_charges: str = keys.FILE_KEYS[keys.BORN_CHARGES]
    born_charges_transposed: str = keys.FILE_KEYS["born_charges_transposed"]
    total_charge: str = keys.FILE_KEYS[keys.TOTAL_CHARGE]


class RunnerUnitsConfig(_Section):
    """Units of input.data files of n2p2 and RuNNer, which do not state them."""

    length: LengthUnit = RUNNER_UNITS["length"]
    energy: EnergyUnit = RUNNER_UNITS["energy"]


class IndexFile(_Section):
    """Frame numbers of the training files, one per line, from 0."""

    indices: str


Fraction = Annotated[float, Field(ge=0, lt=1)]
Part = Fraction | Annotated[int, Field(ge=0)] | IndexFile


class DataConfig(_Section):
    """Files and how they are divided. Relative paths in a configuration file start from its folder."""

    training: str | list[str]
    validation: Part | str | list[str] = 0.1
    test: Part | str | list[str] = 0
    training_size: Part | None = None
    split_seed: int = 0
    keys: KeysConfig = KeysConfig()
    runner_units: RunnerUnitsConfig = RunnerUnitsConfig()
    reference_energies: Literal["auto", "isolated_atoms", "least_squares", "none"] | dict[str, float] = "auto"
    max_force: Positive = MAX_FORCE
    weights: dict[str, Weight] = {}


class SecondStageConfig(_Section):
    """Weights at the end of a run, from the first epoch that begins when the fraction `start` of it is over.

    Weights that are null stay what they are.
    """

    start: Annotated[float, Field(gt=0, lt=1)] = 0.75
    energy: Weight | None = None
    forces: Weight | None = None
    virial: Weight | None = None
    charges: Weight | None = None
    dipole: Weight | None = None
    born_charges: Weight | None = None

    @model_validator(mode="after")
    def _something_changes(self) -> SecondStageConfig:
        if not self.weights():
            raise ValueError(
                "no weight changes; give energy, forces, virial, charges, dipole or born_charges"
            )
        return self

    def weights(self) -> dict[str, float]:
        """The weights that are given."""
        return self.model_dump(exclude={"start"}, exclude_none=True)


class LossConfig(_Section):
    """Weights of the terms, and the σ that makes each dimensionless (estimated from the data where null)."""

    energy: Weight = 1.0
    forces: Weight = 1.0
    virial: Weight = 0.0
    charges: Weight = 0.0
    dipole: Weight = 0.0
    born_charges: Weight = 0.0
    sigma_energy: Positive | None = None
    sigma_forces: Positive | None = None
    sigma_virial: Positive | None = None
    sigma_charges: Positive | None = None
    sigma_dipole: Positive | None = None
    sigma_born_charges: Positive | None = None
    second_stage: SecondStageConfig | None = None

    def stages(self) -> dict[str, LossConfig]:
        """The losses of the run one after the other, by the section that their weights are from."""
        stages = {"training.loss": self}
        if self.second_stage is not None:
            stages["training.loss.second_stage"] = self.model_copy(update=self.second_stage.weights())
        return stages


class _Schedule(_Section):
    warmup_steps: Annotated[int, Field(ge=0)] = 100


class CosineSchedule(_Schedule):
    """From the full learning rate to `final_fraction` of it over the whole run."""

    kind: Literal["cosine"] = "cosine"
    final_fraction: Annotated[float, Field(ge=0, le=1)] = 0.01


class LinearSchedule(_Schedule):
    """From the full learning rate to `final_fraction` of it over the whole run, on a straight line."""

    kind: Literal["linear"]
    final_fraction: Annotated[float, Field(ge=0, le=1)] = 0.01


class PlateauSchedule(_Schedule):
    """Multiply by `factor` when the validation loss has not improved for `patience` epochs."""

    kind: Literal["plateau"]
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    patience: Count = 10


class ConstantSchedule(_Schedule):
    """The full learning rate after the warm-up."""

    kind: Literal["constant"]


Schedule = Annotated[
    CosineSchedule | LinearSchedule | PlateauSchedule | ConstantSchedule, Field(discriminator="kind")
]


class AdamWConfig(_Section):
    """First order; its other settings are keys of section `training`."""

    kind: Literal["adamw"] = "adamw"
    amsgrad: bool = False


Beta = Annotated[float, Field(ge=0, lt=1)]


class ShampooAdamConfig(_Section):
    """Adam in the eigenbasis of Shampoo's preconditioners, see `shampoo_adam`; first order as AdamW is."""

    kind: Literal["shampoo_adam"]
    betas: Annotated[list[Beta], Field(min_length=2, max_length=2)] = [0.95, 0.95]
    shampoo_beta: Beta | None = None
    frequency: Count = 10
    block_size: Annotated[int, Field(ge=2)] = 64


class LevenbergMarquardtConfig(_Section):
    """Second order, see `second_order`, for networks with some thousand parameters.

    A step of the run has `step` times the length of the solution at first, and at the end `final_step`.
    """

    kind: Literal["levenberg_marquardt"]
    batch_frames: Count | None = 8
    force_fraction: Annotated[float, Field(gt=0, le=1)] = 0.1
    memory: Annotated[float, Field(ge=0, lt=1)] = 0.9
    step: Annotated[float, Field(gt=0, le=1)] = 0.5
    final_step: Annotated[float, Field(gt=0, le=1)] = 0.01
    damping: Positive = 0.1


Optimizer = Annotated[AdamWConfig | ShampooAdamConfig | LevenbergMarquardtConfig, Field(discriminator="kind")]


class RegressionConfig(_Section):
    """How a linear model is fitted: prior of the coefficients, see `nearsight.models.linear`."""

    smoothness: Weight = 0.5
    ridge: Positive | None = None


def _device(name: str) -> str:
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise ValueError(f"found {name!r}, expected cpu, cuda, or cuda:NUMBER of a GPU")
    return name


class TrainingConfig(_Section):
    """Length, optimizer, loss."""

    epochs: Count = 200
    max_minutes: Positive | None = None
    optimizer: Optimizer = AdamWConfig()
    batch_size: Count = 2
    learning_rate: Positive = 5e-3
    weight_decay: Weight = 1e-5
    schedule: Schedule = CosineSchedule()
    gradient_clipping: Positive | None = 10.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    early_stopping: Count | None = None
    loss: LossConfig = LossConfig()
    regression: RegressionConfig = RegressionConfig()
    backend: Literal["auto", "native", "torch"] = "auto"
    precision: Literal["mixed", "double"] = "mixed"
    device: Annotated[str, AfterValidator(_device)] = "cpu"
    threads: Count | None = None
    cache_gb: Annotated[float, Field(ge=0)] = 4.0

    @model_validator(mode="after")
    def _second_stage_begins(self) -> TrainingConfig:
        stage, last = self.loss.second_stage, (self.epochs - 1) / self.epochs
        if stage is not None and self.max_minutes is None and stage.start > last:
            raise ValueError(
                f"loss.second_stage.start is {stage.start:g}, but the last of {self.epochs} epoch(s) begins "
                f"at {last:g} of the run; give at most that, or more epochs"
            )
        return self


def batch_size(options: TrainingConfig, num_frames: int) -> int:
    """Frames of a batch of a training set."""
    size: int | None = options.batch_size
    if isinstance(options.optimizer, LevenbergMarquardtConfig):
        size = options.optimizer.batch_frames
    return min(size or num_frames, num_frames)


class Config(_Section):
    """All of a training run."""

    seed: Annotated[int, Field(ge=0)] = 0
    data: DataConfig
    model: ModelConfig = BPNNConfig()
    long_range: LongRangeConfig | None = None
    dispersion: DispersionConfig | None = None
    training: TrainingConfig = TrainingConfig()

    _default_architecture = model_validator(mode="before")(default_tag("model", "architecture", "bpnn"))

    @model_validator(mode="after")
    def _linear_models_are_solved(self) -> Config:
        if self.model.architecture == "linear":
            if "epochs" in self.training.model_fields_set and self.training.epochs != 1:
                raise ValueError(
                    f"training.epochs is {self.training.epochs}, but a linear model is solved in one: leave "
                    "it out"
                )
            if self.training.loss.second_stage is not None:
                raise ValueError(
                    "training.loss.second_stage is given, but a linear model is solved in one; leave it out"
                )
            self.training = self.training.model_copy(update={"epochs": 1})
        return self

    @model_validator(mode="after")
    def _fits_the_device(self) -> Config:
        second_order = isinstance(self.training.optimizer, LevenbergMarquardtConfig)
        if self.training.device != "cpu" and (second_order or self.model.architecture == "linear"):
            what = "optimizer levenberg_marquardt works" if second_order else "a linear model is fitted"
            raise ValueError(
                f"training.device is {self.training.device}, but {what} on the CPU: leave it out"
            )
        return self

    @model_validator(mode="after")
    def _charges_are_trained(self) -> Config:
        kind = None if self.long_range is None else self.long_range.charges
        trained = {
            keys.CHARGES: ("environment", "equilibrated"),
            keys.DIPOLE: ("environment", "latent", "equilibrated"),
            keys.BORN_CHARGES: ("environment", "latent"),
        }
        for section, stage in self.training.loss.stages().items():
            for name, kinds in trained.items():
                if getattr(stage, name) > 0 and kind not in kinds:
                    known = f"{', '.join(kinds[:-1])} or {kinds[-1]}"
                    raise ValueError(
                        f"{section}.{name} is {getattr(stage, name):g}, but only long_range.charges: {known} "
                        f"gives {name} to compare with those of the data; leave it out"
                    )
        return self
