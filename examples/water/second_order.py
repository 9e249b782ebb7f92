"""AdamW and Levenberg-Marquardt on the demo's data: validation errors against wall time.

Trains the same small networks twice with the configuration beside this file, one after the other: with AdamW
for --minutes, then with Levenberg-Marquardt for a third of that. The learning rate and the step fall along a
cosine that ends with the time. Both runs use all cores that the process may use, and both clocks include the
storing of descriptors. Where others use the machine as well, --cpu-clock compares one thread each by CPU
time. Writes second_order.csv, .json and .png.

    taskset -c 0,1 python second_order.py --minutes 5 --output second-order
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import time
from pathlib import Path

from rich.console import Console

from nearsight.training import load_config, train
from nearsight.training.logbook import read_metrics
from nearsight.training.plots import new_figure

HERE = Path(__file__).parent
RUNS = {
    "AdamW": (1.0, ["training.learning_rate=0.005"]),  # the best of 0.01, 0.005 and 0.003 for 5 minutes
    "Levenberg-Marquardt": (1 / 3, ["training.optimizer.kind=levenberg_marquardt"]),
}
COLUMNS = ("elapsed", "validation_loss", "energy_rmse", "forces_rmse", "virial_rmse")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=5.0, help="of AdamW")
    parser.add_argument("--hidden", type=int, nargs="+", default=[15, 15], help="nodes of the hidden layers")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cpu-clock", action="store_true", help="one thread, seconds of CPU")
    parser.add_argument("--output", type=Path, default=Path("second-order"))
    options = parser.parse_args()
    common = [f"model.hidden={options.hidden}", f"seed={options.seed}"]
    if options.cpu_clock:
        time.perf_counter = time.process_time  # the trainer's clock
        common.append("training.threads=1")

    console = Console(width=110)
    histories, results = {}, {}
    for name, (share, settings) in RUNS.items():
        console.rule(name)
        folder = options.output / name.lower()
        overrides = [*common, f"training.max_minutes={share * options.minutes}", *settings]
        started = time.process_time()
        train(load_config(HERE / "train.yaml", overrides), folder, restart=True, console=console)
        histories[name] = read_metrics(folder)
        results[name] = {
            "seconds": histories[name][-1]["elapsed"],
            "cpu_seconds": time.process_time() - started,  # reading and the final errors included
            "validation": min(histories[name], key=lambda row: row["validation_loss"]),
            "test": json.loads((folder / "results.json").read_text())["test"],
        }
    write_table(options.output / "second_order.csv", histories)
    clock = "CPU time of one thread, s" if options.cpu_clock else "wall time, s"
    plot(options.output / "second_order.png", histories, clock)
    (options.output / "second_order.json").write_text(json.dumps(results, indent=1) + "\n")
    for name, found in results.items():
        errors = ", ".join(
            f"{target} {found['test'][target]['rmse']:.3g} {found['test'][target]['unit']}"
            for target in ("energy", "forces", "virial")
        )
        console.print(
            f"{name}: {found['seconds']:.0f} s ({found['cpu_seconds']:.0f} s of CPU), "
            f"validation loss {found['validation']['validation_loss']:.3g}; test RMSE {errors}"
        )
    best = results["AdamW"]["validation"]["validation_loss"]
    reached = time_to_reach(histories["Levenberg-Marquardt"], best)
    console.print(f"Levenberg-Marquardt reached the validation loss of AdamW after {reached:.0f} s.")


def time_to_reach(history: list[dict[str, float]], loss: float) -> float:
    """Seconds until the validation loss was as low as this one; infinite where it never was."""
    return min((row["elapsed"] for row in history if row["validation_loss"] <= loss), default=math.inf)


def write_table(path: Path, histories: dict[str, list[dict[str, float]]]) -> None:
    """One row per epoch."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("optimizer", "epoch", *COLUMNS))
        for name, rows in histories.items():
            writer.writerows(
                (name, row["epoch"], *(f"{row[column]:.6g}" for column in COLUMNS)) for row in rows
            )


def plot(path: Path, histories: dict[str, list[dict[str, float]]], clock: str) -> None:
    """Loss and errors against time; dotted: the best of AdamW, and a third of its time."""
    figure, axes = new_figure(11.0, 3.6, ncols=3)
    labels = {
        "validation_loss": "validation loss",
        "forces_rmse": "force RMSE, meV/Å",
        "energy_rmse": "energy RMSE, meV/atom",
    }
    best = min(histories["AdamW"], key=lambda row: row["validation_loss"])
    for ax, (column, label) in zip(axes, labels.items()):
        for name, rows in histories.items():
            ax.semilogy([row["elapsed"] for row in rows], [row[column] for row in rows], label=name)
        ax.axhline(best[column], color="0.5", linestyle=":")
        ax.axvline(histories["AdamW"][-1]["elapsed"] / 3, color="0.5", linestyle=":")
        ax.set_xlabel(clock)
        ax.set_ylabel(label)
    axes[0].legend()
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main()
