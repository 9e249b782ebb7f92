"""What a run needs before it trains: model, loss, batches, optimizer, stored descriptors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from nearsight import keys
from nearsight.couple import FrameCharger, evaluate, present_couple, widest_couple
from nearsight.data import Frame, fit_energies
from nearsight.data.reference_energies import LEAST_SQUARES, NONE
from nearsight.errors import ConfigError
from nearsight.keys import READOUT_ENERGY
from nearsight.models import BPNN, MACE, LinearConfig, build_model, training_module
from nearsight.models.mace_native import NativeMACE
from nearsight.models.moments import MomentDescriptor
from nearsight.models.native import NativeBPNN
from nearsight.neighbors import Graph
from nearsight.training.batches import Batch, batch_order, hands, make_batch
from nearsight.training.config import Config, LevenbergMarquardtConfig, batch_size
from nearsight.training.coverage import survey
from nearsight.training.datasets import Sets, frame_weight, named
from nearsight.training.devices import CPU
from nearsight.training.first_order import FirstOrder
from nearsight.training.logbook import Logbook
from nearsight.training.loop import Optimizer, Trainer, TrainingData
from nearsight.training.loss import Loss, make_loss
from nearsight.training.processes import Processes
from nearsight.training.regression import Regression
from nearsight.training.second_order import LevenbergMarquardt
from nearsight.training.stored import Stored, store_edges, store_frame, store_frames

_STATISTICS_ATOMS = 20_000  # enough for means and correlations of descriptors
_SCALE_FRAMES = 4
_SMALLEST_FORCE = 1e-3  # eV/Å; frames of isolated atoms have none


def prepare(
    config: Config,
    sets: Sets,
    logbook: Logbook,
    processes: Processes,
    content: dict[str, Any] | None,
    dry_run: bool,
    device: torch.device = CPU,
) -> tuple[Trainer, dict[str, dict[int, Batch]]]:
    """Make the trainer of a run.

    Args:
        config: of the run.
        sets: its data.
        logbook: hears about the model.
        processes: that train together.
        content: of the checkpoint where the run continues, None for a new run, whose model is fitted to the
            statistics of the training set.
        dry_run: only the first batch will be trained.
        device: where the model is trained; statistics are fitted on the CPU.

    Returns:
        The trainer, and the batches that are this process's, by set and frame.

    Raises:
        ConfigError: model, optimizer and data do not fit together.
    """
    torch.manual_seed(config.seed)
    model = _build(config, sets.species)
    charger = FrameCharger(widest_couple(model)) if _has_charges(model) else None
    losses = [
        make_loss(stage, sets.frames["training"], sets.reference)
        for stage in config.training.loss.stages().values()
    ]
    loss = losses[0]
    _describe(logbook, model, loss, processes)
    module = make_module(config, model, processes)
    batches = {
        name: {
            number: make_batch(
                frames[number],
                sets.species,
                model.cutoff,
                sets.reference,
                frame_weight(frames[number], config.data.weights),
                charger,
            )
            for number in _mine(config, name, len(frames), processes)
        }
        for name, frames in named(sets).items()
    }
    if content:
        model.load_state_dict(content["model"])
    else:
        fitted = processes.from_first(
            lambda: _fit(model, module, sets, batches["training"], loss, logbook, charger).state_dict()
        )
        model.load_state_dict(fitted)
    model.to(device)
    trained = model.on_inputs() if isinstance(model, BPNN) else model
    if trained is not model or device != CPU:
        module = make_module(config, trained, processes)
    optimizer = _optimizer(config, sets, trained, module, loss, processes, logbook)
    data = TrainingData(
        batches["training"],
        batches["validation"],
        len(sets.frames["training"]),
        sets.frames["validation"],
        sets.reference,
    )
    trainer = Trainer(
        config, model, module, optimizer, data, losses, logbook, processes, _facts(config, sets)
    )
    first_batch = batch_order(data.num_training, optimizer.batch_size, config.seed, epoch=1)[0]
    needed = set(first_batch) if dry_run else set(data.training)
    if not _is_linear(config):
        data.training.update(_store(config, module, data.training, needed, logbook, processes, device))
    return trainer, batches


def _optimizer(
    config: Config,
    sets: Sets,
    model: nn.Module,
    module: nn.Module,
    loss: Loss,
    processes: Processes,
    logbook: Logbook,
) -> Optimizer:
    num_frames = len(sets.frames["training"])
    if not _is_linear(config):
        if isinstance(config.training.optimizer, LevenbergMarquardtConfig):
            if not _can_store(module):
                raise ConfigError(
                    "optimizer levenberg_marquardt needs the native backend and a descriptor without trained "
                    "parameters; take optimizer adamw."
                )
            return LevenbergMarquardt(config.training, config.seed, model, loss, processes, num_frames)
        return FirstOrder(config.training, model, module, loss, processes)
    if not isinstance(module, NativeBPNN):
        raise ConfigError("a linear model is fitted by the native backend; leave training.backend at auto.")
    return Regression(
        config.training.regression,
        model,
        module,
        loss,
        processes,
        logbook,
        num_frames=num_frames,
        bias=sets.reference.source in (LEAST_SQUARES, NONE),
        threads=config.training.threads or processes.threads,
    )


def _is_linear(config: Config) -> bool:
    return isinstance(config.model, LinearConfig)


def _mine(config: Config, name: str, num_frames: int, processes: Processes) -> list[int]:
    """The frames of a set that this process works on."""
    if name != "training":
        return list(processes.share(num_frames))
    dealt = hands(num_frames, _batch_size(config, num_frames), config.seed)
    if len(dealt) < processes.size:
        raise ConfigError(
            f"a batch has {len(dealt)} frame(s) for {processes.size} processes; start at most as many "
            "processes as a batch has frames, or take larger batches."
        )
    return sorted(int(number) for k in processes.share(len(dealt)) for number in dealt[k])


def _batch_size(config: Config, num_frames: int) -> int:
    return num_frames if _is_linear(config) else batch_size(config.training, num_frames)


def _store(
    config: Config,
    module: nn.Module,
    batches: dict[int, Batch],
    needed: set[int],
    logbook: Logbook,
    processes: Processes,
    device: torch.device,
) -> dict[int, Batch]:
    """Batches whose descriptors or edges are stored, on the device, where that is possible.

    For the first order, derivatives are stored only where all of them fit into memory, since products with
    numbers from a file would be slower than an evaluation, and where it pays.
    """
    second_order = isinstance(config.training.optimizer, LevenbergMarquardtConfig)
    bound = config.training.cache_gb * 1e9
    if isinstance(module, NativeMACE):
        numbers = sorted(needed & set(batches))
        edges = store_edges(module, (batches[number].graph.to(device=device) for number in numbers), bound)
        return {number: replace(batches[number], stored=(frame,)) for number, frame in zip(numbers, edges)}
    if not _can_store(module) or (bound == 0 and not second_order) or device != CPU:
        return {}
    native = NativeBPNN(module.model, 1)
    numbers = sorted(needed & set(batches))
    graphs = [batches[number].graph for number in numbers]
    threads = config.training.threads or processes.threads
    if second_order or all(processes.gather(_pays(native, graphs, bound))):
        folder = logbook.folder if logbook.folder.is_dir() else None
        stored = store_frames(native, graphs, second_order, bound, folder, threads)
    else:
        stored = [store_frame(native, graph, derivatives=False) for graph in graphs]
    logbook.say(_describe_stored(stored))
    return {number: replace(batches[number], stored=(frame,)) for number, frame in zip(numbers, stored)}


def _can_store(module: nn.Module) -> bool:
    """Whether the module has a descriptor that does not depend on trained parameters, and that is native."""
    return isinstance(module, NativeBPNN) and not any(True for _ in module.model.descriptor.parameters())


def _pays(native: NativeBPNN, graphs: list[Graph], bound: float) -> bool:
    """Whether products with stored derivatives are faster than an evaluation, and derivatives of all frames
    fit into memory, if they are like those of the first.

    Sums of moments are faster than products with the many derivatives of their polynomials. This is not
    measured: a restart has to decide the same.
    """
    if isinstance(native.model.descriptor, MomentDescriptor):
        return False
    if not graphs:
        return True
    size = store_frame(native, graphs[0], derivatives=True).derivatives.values.nbytes / graphs[0].num_atoms
    return size * sum(graph.num_atoms for graph in graphs) <= bound


def _describe_stored(stored: list[Stored]) -> str:
    sizes = {True: 0, False: 0}
    for frame in stored:
        if frame.derivatives:
            sizes[frame.in_memory] += frame.derivatives.values.nbytes
    places = [
        f"{size / 1e9:.2g} GB in {'memory' if where else 'a file'}" for where, size in sizes.items() if size
    ]
    return f"Descriptors are stored{', their derivatives with ' if places else ''}{' and '.join(places)}."


def make_module(config: Config, model: nn.Module, processes: Processes) -> nn.Module:
    """The training module of a model as the configuration says."""
    options = config.training
    return training_module(model, options.backend, options.threads or processes.threads, options.precision)


def _build(config: Config, species: list[str]) -> nn.Module:
    try:
        return build_model(config.model, species, config.long_range)
    except ValueError as error:
        raise ConfigError(f"model: {error}.") from error


def _fit(
    model: nn.Module,
    module: nn.Module,
    sets: Sets,
    batches: dict[int, Batch],
    loss: Loss,
    logbook: Logbook,
    charger: FrameCharger | None,
) -> nn.Module:
    """Fit statistics and ranges of the descriptor, mean energies, and an output scale (eV) that gives random
    networks forces like the data's, and return the model; say what of a descriptor does not fit the data.

    The scale is measured on a few frames: the local forces are proportional to it. Linear models need the
    ranges alone. `batches` are those that this process has anyway; `charger` is that of a model with charges.
    """
    frames = sets.frames["training"]

    def batch(number: int) -> Batch:
        known = batches.get(number)
        return known or make_batch(
            frames[number], sets.species, model.cutoff, sets.reference, charger=charger
        )

    if model.architecture != "linear":
        step = max(1, sum(len(frame) for frame in frames) // _STATISTICS_ATOMS)
        some = range(0, len(frames), step)
        _fit_statistics(model, module, [batch(number).graph for number in some], loss)
        if charger:
            frames = [_without_charges(model, module, frames[number], batch(number)) for number in some]
        model.set_mean_energies(fit_energies(frames, sets.species, sets.reference))
    graphs = (batch(number).graph for number in range(len(sets.frames["training"])))
    if isinstance(model, MACE):
        model.fit_walls(graphs)
    if isinstance(model, BPNN):
        for sentence in survey(model, graphs, module):
            logbook.say(sentence)
    return model


def _has_charges(model: nn.Module) -> bool:
    return model.couple["kind"] == "coulomb"


def _without_charges(model: nn.Module, module: nn.Module, frame: Frame, batch: Batch) -> Frame:
    """The frame without the electrostatic part of its energy, as the untrained model has it."""
    if keys.ENERGY not in frame.labels:
        return frame
    results = evaluate(module, batch.graph, present_couple(model), charged=batch.charged)
    electrostatic = float(results.energy - results.readouts[READOUT_ENERGY].sum())
    return replace(frame, labels={keys.ENERGY: frame.labels[keys.ENERGY] - electrostatic})


def _fit_statistics(model: nn.Module, module: nn.Module, graphs: list[Graph], loss: Loss) -> None:
    few = graphs[:: max(1, len(graphs) // _SCALE_FRAMES)]
    local = {"kind": "sum"} if _has_charges(model) else model.couple
    model.fit_statistics(few, 1.0, source=module)
    squares = [float((evaluate(module, graph, local).forces ** 2).mean()) for graph in few]
    scale = loss.sigmas.get(keys.FORCES, 1.0) / max((sum(squares) / len(squares)) ** 0.5, _SMALLEST_FORCE)
    model.fit_statistics(graphs, scale, source=module)


def _facts(config: Config, sets: Sets) -> dict[str, Any]:
    return {
        "dispersion": config.dispersion and config.dispersion.record(sets.species),
        "species": sets.species,
        "reference_energies": sets.reference.values,
        "reference_energies_source": sets.reference.source,
        "data_files": sets.hashes,
        "num_frames": {name: len(frames) for name, frames in named(sets).items()},
    }


def _describe(logbook: Logbook, model: nn.Module, loss: Loss, processes: Processes) -> None:
    parameters = sum(parameter.numel() for parameter in model.parameters())
    logbook.say(
        f"Model: {model.architecture}, {parameters:,} parameters, cutoff {model.cutoff:g} Å, "
        f"species {' '.join(model.species)}."
    )
    units = {"energy": "eV", "forces": "eV/Å", "virial": "eV", "charges": "e", "dipole": "e·Å"}
    units["born_charges"] = "e"
    terms = (
        f"{name} {loss.weights[name]:g} (σ {loss.sigmas[name]:.4g} {units[name]})" for name in loss.weights
    )
    logbook.say(f"Loss: {', '.join(terms)}.")
    if processes.size > 1:
        logbook.say(f"Every batch is divided over {processes.size} processes.")
