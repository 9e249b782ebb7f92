"""A training run from the configuration to the exported model."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from nearsight import keys
from nearsight.couple import evaluate
from nearsight.data import Frame, fit_energies, plausibility_warnings, report_table, summarize, write_split
from nearsight.errors import ConfigError, NearsightError
from nearsight.export import save_model
from nearsight.models import build_model, training_module
from nearsight.training.batches import Batch, join, make_batch
from nearsight.training.checkpoint import BEST, FOLDER, LAST, check_unchanged, read_checkpoint
from nearsight.training.config import Config, TrainingConfig, dump_config, parse_config
from nearsight.training.coverage import survey
from nearsight.training.datasets import Sets, named, read_sets
from nearsight.training.logbook import Logbook, environment, read_metrics
from nearsight.training.loop import Interrupted, Trainer, TrainingData, split_results
from nearsight.training.loss import Loss, make_loss
from nearsight.training.metrics import UNITS, Metrics, metrics_table

MODEL_FILE = "model.pt"
_STATISTICS_FRAMES = 100  # enough for means and spreads of descriptors
_SCALE_FRAMES = 4
_SMALLEST_FORCE = 1e-3  # eV/Å; frames of isolated atoms have none


def train(
    config: Config, folder: Path, restart: bool = False, dry_run: bool = False, console: Any = None
) -> None:
    """Train a model in the run directory `folder` (see `logbook`), or continue there.

    Args:
        config: of the run.
        folder: run directory; is made.
        restart: continue from its last checkpoint, or begin if there is none.
        dry_run: read everything, evaluate one batch, and write nothing.
        console: rich console, or None for standard output.

    Raises:
        NearsightError: with a sentence for the user; the traceback is in error.log.
    """
    if dry_run:
        with TemporaryDirectory() as scratch, _deterministic(config.training):
            _train(config, Logbook(Path(scratch), console), None, dry_run)
        return
    last = folder / FOLDER / LAST
    if last.exists() and not restart:
        raise ConfigError(
            f"{str(folder)!r} already holds a run; continue with --restart auto, or choose another --output."
        )
    logbook = Logbook(folder, console)
    try:
        with _deterministic(config.training):
            _train(config, logbook, read_checkpoint(last) if last.exists() else None)
    except Interrupted:
        raise
    except Exception as error:
        log = folder / "error.log"
        log.write_text(traceback.format_exc())
        if isinstance(error, NearsightError):
            raise
        raise NearsightError(
            f"Training failed with {type(error).__name__}: {error} (the traceback is in {log})."
        ) from error


def _train(config: Config, logbook: Logbook, content: dict[str, Any] | None, dry_run: bool = False) -> None:
    sets = read_sets(config.data, config.training.loss)
    if content:
        check_unchanged(content, config, sets.hashes)
    summaries = {name: summarize(frames, sets.reference) for name, frames in named(sets).items()}
    logbook.say(report_table(summaries, sets.reference))
    for sentence in [*sets.notes, *plausibility_warnings(summaries, sets.reference)]:
        logbook.say(sentence)

    trainer, batches = _prepare(config, sets, logbook, fit=content is None)
    if dry_run:
        _try_one_batch(trainer, logbook)
        return
    if content:
        trainer.load(content)
        logbook.say(f"Continuing at epoch {trainer.state.epoch}, step {trainer.state.step}.")
    else:
        _write_records(config, sets, logbook)
    logbook.write_json("environment.json", environment())
    logbook.say(f"Training ended: {trainer.run()}.")
    _finish(config, logbook, sets, batches)


def _prepare(
    config: Config, sets: Sets, logbook: Logbook, fit: bool
) -> tuple[Trainer, dict[str, list[Batch]]]:
    """The trainer, its model fitted to the statistics of the training set if asked for, and all batches."""
    torch.manual_seed(config.seed)
    model = _build(config, sets.species)
    batches = {
        name: [make_batch(frame, sets.species, model.cutoff, sets.reference) for frame in frames]
        for name, frames in named(sets).items()
    }
    loss = make_loss(config.training.loss, sets.frames["training"], sets.reference)
    _describe(logbook, model, loss)
    module = training_module(model, config.training.backend, config.training.threads)
    if fit:
        _fit_statistics(model, module, batches["training"], loss)
        model.set_mean_energies(fit_energies(sets.frames["training"], sets.species, sets.reference))
        for sentence in survey(model, (batch.graph for batch in batches["training"]), module):
            logbook.say(sentence)
    data = TrainingData(batches["training"], batches["validation"], sets.frames["validation"], sets.reference)
    return Trainer(config, model, module, data, loss, logbook, _facts(sets)), batches


def _build(config: Config, species: list[str]) -> nn.Module:
    try:
        return build_model(config.model, species)
    except ValueError as error:
        raise ConfigError(f"model: {error}.") from error


def _fit_statistics(model: nn.Module, module: nn.Module, batches: list[Batch], loss: Loss) -> None:
    """Fit descriptor statistics, and an output scale (eV) that gives random networks forces like the data's.

    It is measured on a few frames: the outputs are proportional to it.
    """
    step = max(1, len(batches) // _STATISTICS_FRAMES)
    graphs = [batch.graph for batch in batches[::step]]
    few = graphs[:: max(1, len(graphs) // _SCALE_FRAMES)]
    model.fit_statistics(few, 1.0, source=module)
    squares = [float((evaluate(module, graph, model.couple).forces ** 2).mean()) for graph in few]
    scale = loss.sigmas.get(keys.FORCES, 1.0) / max((sum(squares) / len(squares)) ** 0.5, _SMALLEST_FORCE)
    model.fit_statistics(graphs, scale, source=module)


def _facts(sets: Sets) -> dict[str, Any]:
    return {
        "species": sets.species,
        "reference_energies": sets.reference.values,
        "reference_energies_source": sets.reference.source,
        "data_files": sets.hashes,
        "num_frames": {name: len(frames) for name, frames in named(sets).items()},
    }


def _write_records(config: Config, sets: Sets, logbook: Logbook) -> None:
    (logbook.folder / "config.resolved.yaml").write_text(dump_config(config))
    write_split(
        logbook.folder / "split",
        {name: sets.numbers[name] for name in named(sets)},
        {name: sets.sources[name] for name in named(sets)},
    )


def _describe(logbook: Logbook, model: nn.Module, loss: Loss) -> None:
    parameters = sum(parameter.numel() for parameter in model.parameters())
    logbook.say(
        f"Model: {model.architecture}, {parameters:,} parameters, cutoff {model.cutoff:g} Å, "
        f"species {' '.join(model.species)}."
    )
    units = {"energy": "eV", "forces": "eV/Å", "virial": "eV"}
    terms = (
        f"{name} {loss.weights[name]:g} (σ {loss.sigmas[name]:.4g} {units[name]})" for name in loss.weights
    )
    logbook.say(f"Loss: {', '.join(terms)}.")


def _try_one_batch(trainer: Trainer, logbook: Logbook) -> None:
    batch = join(trainer.data.training[: trainer.options.batch_size])
    started = time.perf_counter()
    results = evaluate(trainer.module, batch.graph, trainer.model.couple, create_graph=True)
    value = trainer.loss(results, batch).mean()
    value.backward()
    seconds = time.perf_counter() - started
    epoch = seconds * len(trainer.data.training) / len(batch.num_atoms)
    logbook.say(
        f"Dry run: the loss of one batch before training is {float(value.detach()):.4g}; "
        f"an epoch will take about {epoch:.1f} s. Nothing was trained."
    )


def _finish(config: Config, logbook: Logbook, sets: Sets, batches: dict[str, list[Batch]]) -> None:
    """Errors of the best weights on every set, plots, and the exported model."""
    from nearsight.training import plots

    content = read_checkpoint(logbook.folder / FOLDER / BEST)
    model = restore_model(content)
    module = training_module(model, config.training.backend, config.training.threads)
    metrics, parity = {}, {}
    for name, frames in named(sets).items():
        predictions = _predict(module, model, frames, batches[name], config.training.batch_size, sets)
        metrics[name] = Metrics()
        for frame, prediction in zip(frames, predictions):
            metrics[name].add(frame, prediction)
        parity[name] = (frames, predictions)
    logbook.say(metrics_table(f"Errors of the best epoch, {content['state']['best_epoch']}", metrics))
    logbook.write_json("results.json", {name: errors.as_dict() for name, errors in metrics.items()})
    shown = "test" if "test" in parity else "validation"
    plots.plot_history(read_metrics(logbook.folder), logbook.folder / "plots" / "history.png")
    plots.plot_parity(logbook.folder / "plots", *parity[shown], sets.reference, title=f"{shown} set")
    path = logbook.folder / MODEL_FILE
    export_checkpoint(content, path, metrics["validation"])
    logbook.say(f"Model written to {path}; plots in {logbook.folder / 'plots'}.")


def _predict(
    module: nn.Module, model: nn.Module, frames: list[Frame], batches: list[Batch], size: int, sets: Sets
) -> list[dict[str, Any]]:
    predictions = []
    for start in range(0, len(frames), size):
        results = evaluate(module, join(batches[start : start + size]).graph, model.couple)
        predictions += split_results(results, frames[start : start + size], sets.reference)
    return predictions


def restore_model(content: dict[str, Any]) -> nn.Module:
    """The model of a checkpoint with its averaged weights."""
    config = parse_config(content["config"])
    model = build_model(config.model, content["species"])
    model.load_state_dict(content["model"])
    with torch.no_grad():
        for parameter, average in zip(model.parameters(), content["average"]):
            parameter.copy_(average)
    return model


def export_checkpoint(content: dict[str, Any], path: Path, validation: Metrics | None = None) -> None:
    """Write the model of a checkpoint as a model file.

    Args:
        content: the checkpoint.
        path: of the model file.
        validation: errors on the validation set, for the provenance.
    """
    provenance = {
        "data_files": {Path(name).name: digest for name, digest in content["data_files"].items()},
        "num_frames": content["num_frames"],
        "epoch": content["state"]["best_epoch"],
        "validation_loss": content["state"]["best_loss"],
        "validation_errors": {
            f"{name} RMSE, {UNITS[name]}": float(f"{errors.rmse:.4g}")
            for name, errors in (validation.targets.items() if validation else ())
        },
        "date": time.strftime("%Y-%m-%d"),
    }
    save_model(
        path,
        restore_model(content),
        reference_energies=content["reference_energies"],
        reference_energies_source=content["reference_energies_source"],
        provenance=provenance,
    )


def find_checkpoint(path: Path) -> Path:
    """The checkpoint that is meant by a run directory (its best one) or by a checkpoint file.

    Raises NearsightError where there is none.
    """
    if path.is_file():
        return path
    for name in (BEST, LAST):
        if (path / FOLDER / name).is_file():
            return path / FOLDER / name
    raise NearsightError(
        f"{str(path)!r} is neither a checkpoint nor a run directory with {FOLDER}/{BEST} in it."
    )


@contextmanager
def _deterministic(options: TrainingConfig) -> Iterator[None]:
    """Deterministic algorithms, and PyTorch's threads: one beside the native descriptor, which has its own.

    The networks' tensors are small: spinning threads of PyTorch would only slow the descriptor down.
    """
    threads = options.threads if options.backend == "torch" else 1
    before = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    torch.use_deterministic_algorithms(True)
    if threads:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.set_num_threads(before[1])
