"""Models of other programs, read from their parameter files. Nothing in such a file is executed."""

from __future__ import annotations

from nearsight.importers.imported import Imported

__all__ = ["Imported"]
