"""``nearsight train``: from a configuration to a model file."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class Restart(str, Enum):
    """What to do with a run that is already in the run directory."""

    never = "never"
    auto = "auto"


def command(
    config: Annotated[Path, typer.Argument(help="YAML file; examples/train.yaml explains every key")],
    override: Annotated[
        list[str],
        typer.Option(
            "--override",
            "-o",
            metavar="KEY=VALUE",
            help="replace a value of the configuration; paths start here",
        ),
    ] = [],  # noqa: B006 typer copies it
    output: Annotated[
        Path | None, typer.Option("--output", help="run directory; default runs/NAME_OF_CONFIG")
    ] = None,
    restart: Annotated[
        Restart,
        typer.Option("--restart", help="auto: continue the run in the run directory"),
    ] = Restart.never,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="check configuration and data, try one batch, write nothing")
    ] = False,
) -> None:
    """Train a model.

    The run directory gets the log, metrics.csv, plots, checkpoints and the exported model.pt.

        nearsight train train.yaml --dry-run
        nearsight train train.yaml -o training.epochs=50 -o model.size=medium --output runs/first
        nearsight train train.yaml --output runs/first --restart auto

    Ctrl-C finishes the batch at hand and writes a checkpoint to continue from.

    Several processes divide every batch among them, with the same results up to round-off:

        torchrun --nproc-per-node 2 -m nearsight train train.yaml --output runs/first
    """
    from nearsight.training import Interrupted, join_processes, load_config, train

    folder = output or Path("runs") / config.stem
    try:
        with join_processes() as processes:
            train(
                load_config(config, override),
                folder,
                restart=restart is Restart.auto,
                dry_run=dry_run,
                processes=processes,
            )
    except Interrupted as interrupted:
        options = "".join(f" -o '{value}'" for value in override)
        raise Interrupted(
            f"{interrupted}\n"
            f"  continue:            nearsight train {config}{options} --output {folder} --restart auto\n"
            f"  use the model as is: nearsight export {folder} -o model.pt",
            interrupted.number,
        ) from None
