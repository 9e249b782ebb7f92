"""The program `nearsight`: its commands, its version, and how errors are shown.

Modules of commands import at the top only what is cheap, so that `nearsight info` answers at once.
"""

from __future__ import annotations

import importlib
import os
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

import nearsight
from nearsight.errors import NearsightError

COMMANDS = (
    *("train", "evaluate", "distill", "info", "export", "committee", "dispersion", "pme-tune", "lammps"),
    "demo",
)

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown"
)
for _name in COMMANDS:
    app.command(_name)(importlib.import_module(f"nearsight.cli.{_name.replace('-', '_')}").command)
app.add_typer(importlib.import_module("nearsight.cli.import_").app, name="import")


def _show_version(wanted: bool) -> None:
    if wanted:
        print(versions())
        raise typer.Exit


@app.callback()
def _program(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show versions and exit.")
    ] = False,
) -> None:
    """Machine-learned interatomic potentials, from reference data to molecular dynamics.

    From data to a simulation:

        nearsight train train.yaml --output run
        nearsight evaluate run/model.pt test.xyz --plots out
        nearsight lammps -n 2 -- -in in.water

    `nearsight COMMAND --help` explains each command.
    """


def versions() -> str:
    """Versions of nearsight, torch and the core, with the instruction set that the core uses here."""
    lines = [f"nearsight {nearsight.__version__}"]
    try:
        lines.append(f"torch {version('torch')}")
    except PackageNotFoundError:
        lines.append("torch is not installed")
    try:
        from nearsight.lib import _core
    except ImportError:
        lines.append("core is not built")
    else:
        lines.append(f"core with {_core.instruction_set()} kernels")
    return "\n".join(lines)


def main() -> None:
    """Run the program: one sentence on stderr and exit code 1 for what the user can act on."""
    # Before torch loads OpenMP: threads that spin while they wait slow training on busy cores 50 times.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        app(prog_name="nearsight")
    except NearsightError as error:
        print(f"nearsight: {error}", file=sys.stderr)
        sys.exit(getattr(error, "exit_code", 1))
    except OSError as error:
        print(f"nearsight: {error.filename or 'file'}: {error.strerror}", file=sys.stderr)
        sys.exit(1)
