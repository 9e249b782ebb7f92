"""examples/3bpa/dynamics.py."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import ase
import ase.build
import ase.io
import numpy as np
import pytest
from ase.data import covalent_radii

SCRIPT = Path(__file__).parents[2] / "examples" / "3bpa" / "dynamics.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("dynamics_example", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_bonds_and_contacts_follow_the_first_frame(script):
    """Of water an O-H bond is stretched to twice its length, then the hydrogens meet."""
    water = ase.build.molecule("H2O")
    stretched, close = water.copy(), water.copy()
    stretched.set_distance(0, 1, 2 * water.get_distance(0, 1), fix=0)
    close.set_distance(1, 2, 0.5, fix=0.5)
    longest, closest = script.bonds_and_contacts([water, stretched, close])
    oxygen, hydrogen = covalent_radii[8], covalent_radii[1]
    bond = water.get_distance(0, 1) / (oxygen + hydrogen)
    np.testing.assert_allclose(longest[:2], [bond, 2 * bond], rtol=1e-12)
    np.testing.assert_allclose(
        closest[[0, 2]], np.array([water.get_distance(1, 2), 0.5]) / (2 * hydrogen), rtol=1e-12
    )


def test_the_script_runs_and_judges(script, models, tmp_path, monkeypatch, capsys):
    """An untrained model hardly binds, and at 1 K nothing moves far in 2 fs."""
    ase.io.write(tmp_path / "start.xyz", ase.build.molecule("H2O"))
    arguments = ["--temperature", "1", "--timestep", "0.01", "--nvt", "0.002", "--nve", "0.002"]
    output = ["--output", str(tmp_path / "run"), "--precision", "double"]
    monkeypatch.setattr(
        sys, "argv", ["dynamics.py", str(models["bpnn"]), str(tmp_path / "start.xyz"), *arguments, *output]
    )
    script.main()
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == "1 K, 0.002 ps: intact"
    assert second.startswith("longest bond 0.9")
    assert third.startswith("double: drift")
    assert (tmp_path / "run" / "dynamics.png").stat().st_size > 10_000
