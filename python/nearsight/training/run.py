"""A training run from the configuration to the exported model."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from nearsight.couple import evaluate, present_couple
from nearsight.data import Frame, plausibility_warnings, report_table, summarize, write_split
from nearsight.errors import ConfigError, NearsightError
from nearsight.export import save_model
from nearsight.models import BPNNConfig, LinearConfig, MACEConfig, build_model
from nearsight.training.batches import Batch, batch_order, born_layers, join
from nearsight.training.checkpoint import BEST, FOLDER, LAST, check_unchanged, read_checkpoint
from nearsight.training.config import Config, dump_config, parse_config
from nearsight.training.datasets import Sets, named, read_sets
from nearsight.training.devices import choose_device
from nearsight.training.logbook import Logbook, SilentLogbook, environment, read_metrics
from nearsight.training.loop import Interrupted, Trainer, in_parts, split_results
from nearsight.training.metrics import UNITS, Metrics, metrics_table
from nearsight.training.preparation import make_module, prepare
from nearsight.training.processes import ALONE, Processes

MODEL_FILE = "model.pt"


def train(
    config: Config,
    folder: Path,
    restart: bool = False,
    dry_run: bool = False,
    console: Any = None,
    processes: Processes = ALONE,
) -> None:
    """Train a model in the run directory `folder` (see `logbook`), or continue there.

    Args:
        config: of the run.
        folder: run directory; is made.
        restart: continue from its last checkpoint, or begin if there is none.
        dry_run: read everything, evaluate one batch, and write nothing.
        console: rich console, or None for standard output.
        processes: that train together (see `processes.join_processes`); the first one writes.

    Raises:
        NearsightError: with a sentence for the user; the traceback is in error.log.
    """
    if dry_run:
        with TemporaryDirectory() as scratch, _deterministic(config):
            logbook = Logbook(Path(scratch), console) if processes.first else SilentLogbook(folder)
            _train(config, logbook, processes, None, dry_run)
        return
    content = processes.from_first(lambda: _present_run(folder, restart))
    logbook = Logbook(folder, console) if processes.first else SilentLogbook(folder)
    try:
        with _deterministic(config):
            _train(config, logbook, processes, content)
    except Interrupted:
        raise
    except Exception as error:
        if not processes.speaks():
            raise
        log = folder / "error.log"
        log.write_text(traceback.format_exc())
        if isinstance(error, NearsightError):
            raise
        raise NearsightError(
            f"Training failed with {type(error).__name__}: {error} (the traceback is in {log})."
        ) from error


def _present_run(folder: Path, restart: bool) -> dict[str, Any] | None:
    """The last checkpoint of the run in a folder, None where there is no run."""
    last = folder / FOLDER / LAST
    if not last.exists():
        return None
    if not restart:
        raise ConfigError(
            f"{str(folder)!r} already holds a run; continue with --restart auto, or choose another --output."
        )
    return read_checkpoint(last)


def _train(
    config: Config,
    logbook: Logbook,
    processes: Processes,
    content: dict[str, Any] | None,
    dry_run: bool = False,
) -> None:
    device = choose_device(config.training.device, processes)
    sets = read_sets(config.data, config.training.loss, config.dispersion)
    if content:
        check_unchanged(content, config, sets.hashes)
    summaries = {name: summarize(frames, sets.reference) for name, frames in named(sets).items()}
    logbook.say(report_table(summaries, sets.reference))
    for sentence in [*sets.notes, *plausibility_warnings(summaries, sets.reference)]:
        logbook.say(sentence)

    trainer, batches = prepare(config, sets, logbook, processes, content, dry_run, device)
    if dry_run:
        _try_one_batch(trainer, logbook)
        return
    if content:
        trainer.load(content)
        logbook.say(f"Continuing at epoch {trainer.state.epoch}, step {trainer.state.step}.")
    elif processes.first:
        _write_records(config, sets, logbook)
    logbook.write_json("environment.json", environment(device))
    logbook.say(f"Training ended: {trainer.run()}.")
    _finish(config, logbook, sets, batches, trainer)


def _write_records(config: Config, sets: Sets, logbook: Logbook) -> None:
    (logbook.folder / "config.resolved.yaml").write_text(dump_config(config))
    write_split(
        logbook.folder / "split",
        {name: sets.numbers[name] for name in named(sets)},
        {name: sets.sources[name] for name in named(sets)},
    )


def _try_one_batch(trainer: Trainer, logbook: Logbook) -> None:
    data, size = trainer.data, trainer.optimizer.batch_size
    numbers = batch_order(data.num_training, size, trainer.config.seed, epoch=1)[0]
    started = time.perf_counter()
    trainer.train_batch(numbers)
    epoch = (time.perf_counter() - started) * data.num_training / len(numbers)
    logbook.say(
        f"Dry run: the loss of one batch before training is {trainer.state.loss_sum / len(numbers):.4g}; "
        f"an epoch will take about {epoch:.1f} s. Nothing was trained."
    )


def _finish(
    config: Config, logbook: Logbook, sets: Sets, batches: dict[str, dict[int, Batch]], trainer: Trainer
) -> None:
    """Errors of the best weights on every set, plots, and the exported model."""
    processes = trainer.processes
    content = processes.from_first(lambda: read_checkpoint(logbook.folder / FOLDER / BEST))
    model = restore_model(content).to(trainer.device)
    module = make_module(config, model, processes)
    parity = {
        name: (frames, _predict(module, model, frames, batches[name], config.training.batch_size, trainer))
        for name, frames in named(sets).items()
    }
    if processes.first:
        _report(logbook, sets, content, parity)


def _report(
    logbook: Logbook, sets: Sets, content: dict[str, Any], parity: dict[str, tuple[Sequence[Frame], list]]
) -> None:
    from nearsight.training import plots

    metrics = {name: Metrics() for name in parity}
    for name, pairs in parity.items():
        for frame, prediction in zip(*pairs):
            metrics[name].add(frame, prediction)
    logbook.say(metrics_table(f"Errors of the best epoch, {content['state']['best_epoch']}", metrics))
    logbook.write_json("results.json", {name: errors.as_dict() for name, errors in metrics.items()})
    shown = "test" if "test" in parity else "validation"
    plots.plot_history(read_metrics(logbook.folder), logbook.folder / "plots" / "history.png")
    plots.plot_parity(logbook.folder / "plots", *parity[shown], sets.reference, title=f"{shown} set")
    path = logbook.folder / MODEL_FILE
    export_checkpoint(content, path, metrics["validation"])
    logbook.say(f"Model written to {path}; plots in {logbook.folder / 'plots'}.")


def _predict(
    module: nn.Module,
    model: nn.Module,
    frames: Sequence[Frame],
    batches: dict[int, Batch],
    size: int,
    trainer: Trainer,
) -> list[dict[str, Any]]:
    """Predictions for all frames, each made by the process that has its batch."""
    mine: dict[int, dict[str, Any]] = {}
    for numbers in in_parts(batches, size):
        batch = join([batches[number] for number in numbers], trainer.device)
        layers, couple = born_layers(batch, model), present_couple(model)
        results = evaluate(module, batch.graph, couple, charged=batch.charged, born_charges=layers)
        some = [frames[number] for number in numbers]
        mine |= zip(numbers, split_results(results, some, trainer.data.reference))
    everything = {number: found for part in trainer.processes.gather(mine) for number, found in part.items()}
    return [everything[number] for number in range(len(frames))]


def restore_model(content: dict[str, Any]) -> nn.Module:
    """The model of a checkpoint with the weights that are exported."""
    config = parse_config(content["config"])
    model = build_model(config.model, content["species"], config.long_range)
    model.load_state_dict(content["model"])
    with torch.no_grad():
        for parameter, weight in zip(model.parameters(), content["weights"]):
            parameter.copy_(weight)
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
        dispersion=content.get("dispersion"),
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
def _deterministic(config: Config) -> Iterator[None]:
    """Deterministic algorithms, and PyTorch's threads: one beside native code, which has its own.

    The tensors are small: spinning threads of PyTorch would only slow the native code down. To fill new
    memory, as PyTorch does with deterministic algorithms, takes 6 % of a step and serves only to find errors.
    """
    options = config.training
    native = options.backend != "torch" and isinstance(config.model, (BPNNConfig, LinearConfig, MACEConfig))
    threads = 1 if native else options.threads
    before = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    filled = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    if threads:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.utils.deterministic.fill_uninitialized_memory = filled
        torch.set_num_threads(before[1])
