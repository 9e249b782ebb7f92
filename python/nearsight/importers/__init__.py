"""Models of other programs, read from their parameter files.

Nothing in such a file is executed, except that a model of mace-torch is a pickle: see `mace_torch`.
"""

from __future__ import annotations

from nearsight.importers.imported import Imported
from nearsight.importers.torchani_model import from_torchani

__all__ = ["Imported", "from_torchani"]
