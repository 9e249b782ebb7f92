"""ANI-2x in LAMMPS against torchani's results."""

from __future__ import annotations

import ase.io
import numpy as np
import pytest
from ase import Atoms
from lammps_harness import Case, run_cases
from reference_data import reference_data

from nearsight.importers.neurochem import import_ani
from nearsight.units import HARTREE

ELEMENTS = ("H", "C", "N", "O", "S", "F", "Cl")


@pytest.fixture(scope="module")
def ani_2x(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Atoms], list[Case]]:
    folder = reference_data("ani2x")
    path = tmp_path_factory.mktemp("ani2x") / "ani2x.pt"
    import_ani(folder).save(path)
    frames = ase.io.read(folder / "reference.extxyz", ":")
    pair = ("pair_style mlp precision double", f"pair_coeff * * {path} {' '.join(ELEMENTS)}")
    cases = []
    for frame in frames:
        atoms = frame.copy()
        if not atoms.pbc.any():
            atoms.cell = [30.0, 30.0, 30.0]
            atoms.positions += 15.0 - atoms.positions.mean(0)
        cases.append(Case(atoms, pair, ELEMENTS))
    return frames, cases


@pytest.mark.parametrize("ranks", [1, 4])
def test_ani_2x_equals_torchani(ani_2x: tuple[list[Atoms], list[Case]], tmp_path, ranks: int) -> None:
    frames, cases = ani_2x
    for frame, found in zip(frames, run_cases(tmp_path, cases, ranks)):
        assert found.energy / HARTREE == pytest.approx(frame.info["energy_hartree"], abs=1e-8)
        forces = frame.arrays["forces_hartree_per_angstrom"]
        np.testing.assert_allclose(found.forces / HARTREE, forces, rtol=0, atol=1e-7)
