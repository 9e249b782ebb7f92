"""OpenMM: `create_force` (compiled force), `torchforce_module` (for openmm-torch), `load_plugin`.

What a committee disagrees about and what the training set did not cover: `DeviationReporter`,
`ExtrapolationReporter`, `SystemPotential`.
"""

from typing import TYPE_CHECKING, Any

from nearsight.interfaces.openmm import create_force, load_plugin
from nearsight.interfaces.openmm_reporters import DeviationReporter, ExtrapolationReporter, SystemPotential

if TYPE_CHECKING:
    from nearsight.export.torchforce import torchforce_module

__all__ = [
    "DeviationReporter",
    "ExtrapolationReporter",
    "SystemPotential",
    "create_force",
    "load_plugin",
    "torchforce_module",
]


def __getattr__(name: str) -> Any:
    if name == "torchforce_module":  # needs torch, which the compiled force does not
        from nearsight.export import torchforce

        return torchforce.torchforce_module
    raise AttributeError(f"module 'nearsight.openmm' has no attribute {name!r}")
