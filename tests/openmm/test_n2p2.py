"""The published n2p2 water potential in OpenMM against n2p2's own results."""

import ase.io
import numpy as np
import pytest
from reference_data import reference_data
from test_force import energy_forces, make_context, make_system

from nearsight.importers.n2p2 import import_n2p2
from nearsight.openmm import create_force


def test_water_equals_n2p2(tmp_path):
    folder = reference_data("n2p2_water")
    import_n2p2(folder, cflength=1.8897261328, cfenergy=0.0367493254).save(tmp_path / "water.pt")
    frames = {frame.info["name"]: frame for frame in ase.io.read(folder / "reference.extxyz", ":")}
    for name in ("liquid_192_cubic", "ice_small_0", "dimer_open"):
        frame = frames[name]
        symbols, periodic = frame.get_chemical_symbols(), bool(frame.pbc.all())
        system = make_system(symbols, frame.cell.array if periodic else None)
        system.addForce(create_force(tmp_path / "water.pt", symbols, periodic=periodic, precision="double"))
        energy, forces = energy_forces(make_context(system, frame.positions))
        assert energy == pytest.approx(frame.info["n2p2_energy"], rel=1e-11)
        np.testing.assert_allclose(forces, frame.arrays["n2p2_forces"], rtol=0, atol=1e-7)
