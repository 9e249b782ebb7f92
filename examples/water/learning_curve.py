"""Learning curve of the demo's data: test error against the number of training frames.

Trains the configuration beside this file on nested random subsets, several seeds each, and plots force and
energy errors on the same held-out frames in double logarithmic axes. Takes sizes x seeds x --minutes.

    python learning_curve.py --minutes 4 --seeds 2 --output learning-curve
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from rich.console import Console

from nearsight.training import load_config, train
from nearsight.training.plots import new_figure

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[25, 50, 100, 200])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=4.0, help="training time of each model")
    parser.add_argument("--output", type=Path, default=Path("learning-curve"))
    options = parser.parse_args()

    console = Console()
    errors: dict[str, dict[int, list[float]]] = {"energy": {}, "forces": {}}
    for size in options.sizes:
        for seed in range(options.seeds):
            console.rule(f"{size} frames, seed {seed}")
            folder = options.output / f"{size}-{seed}"
            overrides = [
                f"data.training_size={size}",
                f"seed={seed}",
                f"training.max_minutes={options.minutes}",
            ]
            train(load_config(HERE / "train.yaml", overrides), folder, restart=True, console=console)
            found = json.loads((folder / "results.json").read_text())["test"]
            for name, by_size in errors.items():
                by_size.setdefault(size, []).append(found[name]["rmse"])

    figure, axes = new_figure(9.0, 4.0, ncols=2)
    for ax, (name, unit) in zip(axes, (("energy", "meV/atom"), ("forces", "meV/Å"))):
        sizes = np.array(options.sizes)
        mean = np.array([np.mean(errors[name][n]) for n in options.sizes])
        for n in options.sizes:
            ax.plot([n] * len(errors[name][n]), errors[name][n], "o", color="tab:blue", alpha=0.4)
        slope, offset = np.polyfit(np.log(sizes), np.log(mean), 1)
        ax.loglog(sizes, np.exp(offset) * sizes**slope, "--", color="0.5", label=f"slope {slope:.2f}")
        ax.loglog(sizes, mean, "-", color="tab:blue")
        ax.set_xlabel("training frames")
        ax.set_ylabel(f"test RMSE, {name} ({unit})")
        ax.legend()
    figure.savefig(options.output / "learning_curve.png")
    (options.output / "learning_curve.json").write_text(json.dumps(errors, indent=1))
    console.print(f"Written to {options.output}/learning_curve.png and .json")


if __name__ == "__main__":
    main()
