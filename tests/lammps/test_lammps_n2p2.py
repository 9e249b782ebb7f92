"""The published n2p2 water potential in LAMMPS, on several ranks, against n2p2's own results."""

from __future__ import annotations

import ase.io
import numpy as np
import pytest
from ase import Atoms
from lammps_harness import Case, run_cases
from reference_data import reference_data

from nearsight.importers.n2p2 import import_n2p2

FORCES = {"liquid_192_triclinic": 7e-7}  # eV/Å; its positions are rounded, see tests/test_import_n2p2.py


@pytest.fixture(scope="module")
def water(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Atoms], list[Case]]:
    folder = reference_data("n2p2_water")
    path = tmp_path_factory.mktemp("n2p2") / "water.pt"
    import_n2p2(folder, cflength=1.8897261328, cfenergy=0.0367493254).save(path)
    frames = ase.io.read(folder / "reference.extxyz", ":")
    cases = []
    for frame in frames:
        atoms = frame.copy()
        if not atoms.pbc.any():
            atoms.cell = [30.0, 30.0, 30.0]
            atoms.positions += 15.0 - atoms.positions.mean(0)
        pair = ("pair_style mlp precision double", f"pair_coeff * * {path} O H")
        cases.append(Case(atoms, pair, before_box=("box tilt large",)))
    return frames, cases


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_water_equals_n2p2(water: tuple[list[Atoms], list[Case]], tmp_path, ranks: int) -> None:
    frames, cases = water
    for frame, found in zip(frames, run_cases(tmp_path, cases, ranks)):
        assert found.energy == pytest.approx(frame.info["n2p2_energy"], rel=1e-11)
        tolerance = FORCES.get(frame.info["name"], 1e-7)
        np.testing.assert_allclose(found.forces, frame.arrays["n2p2_forces"], rtol=0, atol=tolerance)
