"""Options that several commands have."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer


class Backend(str, Enum):
    """What evaluates the model."""

    auto = "auto"
    native = "native"
    torchscript = "torchscript"


BackendOption = Annotated[
    Backend, typer.Option("--backend", help="native: the C++ engine; torchscript: the scripted module")
]
Threads = Annotated[int, typer.Option("--threads", min=1, help="threads of the core")]
Device = Annotated[str, typer.Option("--device", help="cpu, or an NVIDIA GPU: cuda, cuda:1")]
BatchAtoms = Annotated[
    int | None,
    typer.Option(
        "--batch-atoms",
        min=1,
        show_default="by model, threads and device",
        help="atoms of small frames that are evaluated together, at most",
    ),
]
