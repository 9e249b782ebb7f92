"""nearsight: machine-learned interatomic potentials, from reference data to molecular dynamics.

Importing this package is cheap on purpose (no torch, no ASE): LAMMPS imports it at every start to find the
plugin.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"
__all__ = ["Calculator", "Potential", "__version__", "load"]

_LAZY = {
    "Calculator": "nearsight.interfaces.ase",
    "Potential": "nearsight.interfaces.potential",
    "load": "nearsight.export",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'nearsight' has no attribute {name!r}")
