"""Energy conservation of the demo's model in LAMMPS. Slow: `make slow`, after `make demo`."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from nearsight.demo.dynamics import drift, run_lammps_dynamics
from nearsight.demo.job import starting_structure

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def model():
    path = Path(os.environ.get("NEARSIGHT_DEMO_MODEL", "demo-run/train/model.pt"))
    if not path.exists():
        pytest.skip(f"the demo's model is not in {path}: run `make demo` first, or set NEARSIGHT_DEMO_MODEL")
    return path


@pytest.mark.parametrize(("precision", "limit"), [("mixed", 0.05), ("double", 0.005)])
def test_drift_over_20_ps(model, tmp_path, precision, limit):
    run = run_lammps_dynamics(
        model, starting_structure(), tmp_path, nvt_ps=2.0, nve_ps=20.0, ranks=1, precision=precision
    )
    found = drift(run.time_ps, run.energy, skip_ps=2.0)
    print(
        f"\n{precision}: drift {found.slope:.5f} ± {found.error:.5f} meV/atom/ps, "
        f"rms {found.fluctuation:.4f} meV/atom"
    )
    assert abs(found.slope) <= limit


def test_fluctuation_shrinks_as_the_time_step_squared(model, tmp_path):
    """Velocity Verlet conserves a shadow energy that differs from the energy by O(dt²)."""
    fluctuation = []
    for step in (0.8, 0.4, 0.2):
        folder = tmp_path / str(step)
        folder.mkdir()
        run = run_lammps_dynamics(
            model,
            starting_structure(),
            folder,
            nvt_ps=1.0,
            nve_ps=2.0,
            ranks=1,
            precision="double",
            timestep_fs=step,
        )
        fluctuation.append(drift(run.time_ps, run.energy).fluctuation)
    orders = np.log2(np.array(fluctuation[:-1]) / fluctuation[1:])
    print(f"\nfluctuations {fluctuation} meV/atom, orders {orders}")
    assert (np.abs(orders - 2.0) < 0.35).all()
