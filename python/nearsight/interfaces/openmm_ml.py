"""Registration with openmm-ml: `MLPotential("nearsight", modelPath="model.pt")`.

`import openmmml` loads this module through its entry point, so it imports nothing that could fail: OpenMM,
openmm-ml and the compiled plugin come in when a potential is made.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import openmm
    from openmmml.mlpotential import MLPotentialImpl


class NearsightPotentialFactory:
    """Makes the potential. openmm-ml calls nothing but `createImpl`."""

    def createImpl(
        self, name: str, modelPath: str | os.PathLike[str] | None = None, **args: Any
    ) -> MLPotentialImpl:
        """The implementation of `MLPotential(name, modelPath=…)`.

        Raises:
            ConfigError: modelPath is missing.
        """
        from nearsight.errors import ConfigError

        if modelPath is None:
            raise ConfigError(
                f'MLPotential("{name}") needs a model file: MLPotential("{name}", modelPath="model.pt")'
            )
        return _implementation(modelPath)


def _implementation(path: str | os.PathLike[str]) -> MLPotentialImpl:
    from openmmml.mlpotential import MLPotentialImpl

    class NearsightPotentialImpl(MLPotentialImpl):
        """One model file as an openmm-ml potential."""

        def addForces(
            self,
            topology: openmm.app.Topology,
            system: openmm.System,
            atoms: Iterable[int] | None,
            forceGroup: int,
            precision: str = "mixed",
            backend: str = "auto",
            device: str = "cpu",
            threads: int = 1,
            charge: float | None = None,
            molecules: bool | Sequence[int] = False,
            molecule_charges: Sequence[float] | float | None = None,
            efield: Sequence[float] | None = None,
            **args: Any,
        ) -> None:
            """Add the force to the System; periodic if the Topology has a box or the System is periodic.

            `precision`, `backend`, `device`, `threads`, `charge`, `molecules`, `molecule_charges` and
            `efield` are those of `nearsight.openmm.create_force` and can be given to `createSystem` and
            `createMixedSystem`. Other keywords belong to openmm-ml's embeddings.
            """
            from nearsight.interfaces.openmm import create_force

            has_box = topology.getPeriodicBoxVectors() is not None
            force = create_force(
                path,
                topology,
                particles=atoms,
                periodic=has_box or system.usesPeriodicBoundaryConditions(),
                precision=precision,
                backend=backend,
                device=device,
                threads=threads,
                charge=charge,
                molecules=molecules,
                molecule_charges=molecule_charges,
                efield=efield,
                force_group=forceGroup,
            )
            system.addForce(force)

        def getMLLongRange(self) -> bool:
            """Whether the model has electrostatics, which reach beyond its cutoff."""
            from nearsight.export import read_metadata

            return read_metadata(path)["couple"]["kind"] == "coulomb"

    return NearsightPotentialImpl()
