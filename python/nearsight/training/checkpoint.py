"""Checkpoints: everything that a run needs to continue bit for bit, and that an export needs."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import torch

from nearsight.errors import ConfigError, NearsightError
from nearsight.training.config import FREE_AT_RESTART, Config, changed_keys
from nearsight.training.devices import CPU, moved

FORMAT = "nearsight-checkpoint"
FORMAT_VERSION = 2
FOLDER = "checkpoints"
LAST, BEST = "last.ckpt", "best.ckpt"


def write_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint: to a file beside it first, which then takes the name.

    Tensors are written as those of the CPU. An older file of that name survives a failure.

    Raises:
        NearsightError: the disk is full or not writable.
    """
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "format_version": FORMAT_VERSION, **moved(content, CPU)}, buffer)
    temporary = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        kept = "; the one before it is intact" if path.exists() else ""
        raise NearsightError(
            f"Checkpoint {str(path)!r} cannot be written ({error.strerror}){kept}. Free some space and "
            "continue with --restart auto."
        ) from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint; raises NearsightError if it is missing, foreign, damaged or of another version."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise NearsightError(f"Checkpoint {str(path)!r} does not exist.") from None
    except Exception as error:  # torch.load raises anything, from EOFError to UnpicklingError
        raise NearsightError(f"{str(path)!r} is not a checkpoint, or it is damaged.") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise NearsightError(f"{str(path)!r} is not a checkpoint of nearsight.")
    if content["format_version"] != FORMAT_VERSION:
        other = "a newer" if content["format_version"] > FORMAT_VERSION else "the older"
        raise NearsightError(
            f"Checkpoint {str(path)!r} has version {content['format_version']}, this nearsight reads version "
            f"{FORMAT_VERSION}; take {other} nearsight for it."
        )
    return content


def check_unchanged(content: dict[str, Any], config: Config, files: dict[str, str]) -> None:
    """Refuse to continue a run with another configuration or other data, with the differences.

    Args:
        content: the checkpoint.
        config: the configuration now.
        files: data file → hash, now.
    """
    changes = changed_keys(content["config"], config.model_dump(mode="json", by_alias=True))
    before = content["data_files"]
    changes += [f"content of {name}" for name in files if before.get(name, files[name]) != files[name]]
    if changes:
        raise ConfigError(
            "The run cannot be continued, because it was started with another configuration: "
            f"{'; '.join(changes)}. Only {' and '.join(FREE_AT_RESTART)} may change; start a new run with "
            "another --output."
        )
