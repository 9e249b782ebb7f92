"""Learning curve: test errors against the number of training frames.

Trains a configuration on nested random subsets of its training frames, several seeds each, and plots force
and energy errors on the same test frames in double logarithmic axes. Every model takes the same number of
optimizer steps, so that small sets are not trained less than large ones and the clock has no part in it.
What is there already is not trained again. With several test files each has a line.

    python learning_curve.py water/train.yaml --steps 10000 --seeds 2 --output learning-curve
    python learning_curve.py 3bpa/one_interaction.yaml -o data.training=train_300K.extxyz \\
        --sizes 50 100 200 450 --test "300 K=test_300K.extxyz" --test "1200 K=test_1200K.extxyz"
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import LogLocator
from rich.console import Console

from nearsight.data import read_frames
from nearsight.interfaces.potential import Potential
from nearsight.interfaces.predictions import predict_all
from nearsight.training import load_config, train
from nearsight.training.metrics import Metrics
from nearsight.training.plots import new_figure

UNITS = {"energy": "meV/atom", "forces": "meV/Å"}
Errors = dict[str, dict[str, dict[int, list[float]]]]  # RMSE by quantity, test set and number of frames


def errors_of(model: Path, file: str) -> dict[str, Any]:
    """Errors on the frames of a file, as in the `results.json` of a run."""
    potential, metrics = Potential(model), Metrics()
    frames = read_frames([file])
    for frame, found in zip(frames, predict_all(potential, frames)):
        metrics.add(frame, found)
    return metrics.as_dict()


def measure(options: argparse.Namespace, console: Console) -> Errors:
    """Train and test all sizes and seeds."""
    errors: Errors = {name: {} for name in UNITS}
    files = dict(text.split("=", 1) for text in options.test)
    batch = load_config(options.config, options.override).training.batch_size
    for size in options.sizes:
        for seed in range(options.seeds):
            folder = options.output / f"{size}-{seed}"
            epochs = math.ceil(options.steps * batch / size)
            overrides = [
                *options.override,
                *(f"data.training_size={size}", f"seed={seed}"),
                *(f"training.epochs={epochs}", "training.max_minutes=null"),
            ]
            if not (folder / "results.json").exists():
                console.rule(f"{size} frames, seed {seed}")
                train(load_config(options.config, overrides), folder, restart=True, console=console)
            results = {name: errors_of(folder / "model.pt", file) for name, file in files.items()}
            if not files:
                results["test"] = json.loads((folder / "results.json").read_text())["test"]
            for test, found in results.items():
                for name in UNITS:
                    errors[name].setdefault(test, {}).setdefault(size, []).append(found[name]["rmse"])
    return errors


def plot(errors: Errors, path: Path) -> None:
    """Points of seeds, a line through their means, and its slope."""
    figure, axes = new_figure(9.0, 4.0, ncols=2)
    for ax, (name, by_test) in zip(axes, errors.items()):
        for number, (test, by_size) in enumerate(by_test.items()):
            sizes, color = np.array(list(by_size)), f"C{number}"
            mean = np.array([np.mean(values) for values in by_size.values()])
            for size, values in by_size.items():
                ax.plot([size] * len(values), values, "o", color=color, alpha=0.4)
            slope = np.polyfit(np.log(sizes), np.log(mean), 1)[0] if len(sizes) > 1 else np.nan
            ax.loglog(sizes, mean, "-", color=color, label=f"{test}, slope {slope:.2f}")
        ax.set(xlabel="training frames", ylabel=f"test RMSE, {name} ({UNITS[name]})")
        ax.set_xticks(sizes, [str(size) for size in sizes], minor=False)
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.minorticks_off()
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path, help="configuration of `nearsight train`")
    parser.add_argument("--override", "-o", metavar="KEY=VALUE", action="append", default=[])
    parser.add_argument("--test", metavar="NAME=FILE", action="append", default=[])
    parser.add_argument("--sizes", type=int, nargs="+", default=[25, 50, 100, 200])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10000, help="of the optimizer, for each model")
    parser.add_argument("--output", type=Path, default=Path("learning-curve"))
    options = parser.parse_args()
    console = Console()
    errors = measure(options, console)
    plot(errors, options.output / "learning_curve.png")
    (options.output / "learning_curve.json").write_text(json.dumps(errors, indent=1))
    console.print(f"Written to {options.output}/learning_curve.png and .json")


if __name__ == "__main__":
    main()
