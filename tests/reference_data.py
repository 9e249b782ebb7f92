"""Where the reference data lie that are not part of the project."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def reference_data(name: str) -> Path:
    """The folder of that name; skips the test where it is absent."""
    root = Path(os.environ.get("NEARSIGHT_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (root / name).is_dir():
        pytest.skip(f"reference data {name} is absent (set NEARSIGHT_DATA to the folder that has it)")
    return root / name
