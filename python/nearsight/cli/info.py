"""``nearsight info``: what a model file says about itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def command(
    model: Annotated[Path, typer.Argument(help="model file")],
    as_json: Annotated[bool, typer.Option("--json", help="print the metadata as JSON")] = False,
) -> None:
    """Show what a model file says about itself: species, cutoff, architecture, origin.

    Also shown is what its features covered in the training set.

        nearsight info model.pt
        nearsight info model.pt --json

    It needs neither torch nor the compiled core.
    """
    from nearsight.export import read_metadata

    metadata = read_metadata(model)
    if as_json:
        print(json.dumps(metadata, indent=1, ensure_ascii=False))
        return
    from rich.console import Console

    from nearsight.export.describe import describe
    from nearsight.export.model_file import read_ranges
    from nearsight.export.ranges import training_ranges
    from nearsight.keys import DESCRIPTOR_ARCHITECTURES

    ranges = []
    if metadata["architecture"] in DESCRIPTOR_ARCHITECTURES:
        ranges = training_ranges(metadata["species"], *read_ranges(model))
    Console().print(describe(metadata, ranges))
