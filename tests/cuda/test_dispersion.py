"""D3(BJ) on a device, against the CPU."""

from __future__ import annotations

import json

import numpy as np
import pytest
from core.test_dispersion import CRYSTAL, OPEN, SLAB, WIRE, assert_same
from dispersion_for_tests import record_of, scattered

from nearsight.errors import EvaluationError
from nearsight.export import save_model
from nearsight.lib import _core
from nearsight.models import BPNNConfig, NoLocalEnergy, build_model

BOUNDARIES = pytest.mark.parametrize(
    "pbc", [OPEN, CRYSTAL, SLAB, WIRE], ids=["open", "crystal", "slab", "wire"]
)
TOLERANCES = {"double": 1e-11, "mixed": 1e-5}  # of the largest number


def both(record, precision="double"):
    """The same on the device and on the CPU."""
    arguments = json.dumps(record), len(record["radii"]), precision
    return [_core.Dispersion(*arguments, device=device) for device in ("cuda", "cpu")]


@BOUNDARIES
@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("smoothing", [0.0, 3.0])
def test_equals_the_cpu(pbc, precision, smoothing):
    """More than one block, with atoms in other images of the cell."""
    positions, species, cell = scattered(21, 70, 4)
    shifts = np.random.default_rng(22).integers(-2, 3, (70, 3)) * pbc
    device, cpu = both(record_of(["H", "C", "N", "O"], smoothing=smoothing), precision)
    arguments = (positions + shifts @ cell, species, cell, pbc)
    assert_same(device.evaluate(*arguments), cpu.evaluate(*arguments), TOLERANCES[precision])


@pytest.mark.smallest
@pytest.mark.parametrize("precision", TOLERANCES)
def test_threads_in_any_order(thread_order, precision):
    """The same bits as first found, whichever order that was in."""
    positions, species, cell = scattered(23, 40, 2)
    device, _ = both(record_of(["Si", "O"]), precision)
    result = device.evaluate(positions, species, cell, CRYSTAL)
    for key, values in FIRST_RESULTS.setdefault(precision, result).items():
        np.testing.assert_array_equal(result[key], values, err_msg=key)


FIRST_RESULTS = {}


@pytest.mark.smallest
def test_a_cell_much_smaller_than_the_cutoff():
    device, cpu = both(record_of(["Si", "O"], cutoff=20.0, coordination_cutoff=15.0))
    arguments = (*scattered(24, 3, 2, spacing=2.3), CRYSTAL)
    assert_same(device.evaluate(*arguments), cpu.evaluate(*arguments), 1e-11)


def test_clusters_far_apart():
    """A block of atoms reaches over many cells."""
    positions, species, cell = scattered(25, 20, 2)
    far = np.vstack([positions, positions + np.array([150.0, -90.0, 60.0])])
    for pbc, box in ((OPEN, cell), (CRYSTAL, 200.0 * np.eye(3))):
        device, cpu = both(record_of(["H", "C"]))
        arguments = (far, np.tile(species, 2), box, pbc)
        assert_same(device.evaluate(*arguments), cpu.evaluate(*arguments), 1e-11)


@BOUNDARIES
def test_lists_are_kept_while_they_hold(pbc):
    positions, species, cell = scattered(26, 40, 2)
    device, cpu = both(record_of(["H", "C"]))
    rng = np.random.default_rng(27)
    for spread, strain in ((0.0, 0.0), (0.1, 0.0), (0.2, 0.01), (1.5, 0.0), (0.1, 0.2)):
        matrix = np.eye(3) + strain * np.array([[1, 0, 0], [0.3, -0.5, 0], [0.2, 0.1, 0.4]])
        moved = (positions + spread * rng.uniform(-1, 1, positions.shape)) @ matrix
        arguments = (moved, species, cell @ matrix, pbc)
        assert_same(device.evaluate(*arguments), cpu.evaluate(*arguments), 1e-11)
    for others in (1 - species, species[:30]):  # at the same places; fewer
        arguments = (moved[: len(others)], others, cell, pbc)
        assert_same(device.evaluate(*arguments), cpu.evaluate(*arguments), 1e-11)


def test_no_atoms_and_one():
    device, cpu = both(record_of(["H"]))
    for count in (0, 1):
        arguments = (np.zeros((count, 3)), np.zeros(count, np.int32), 5.0 * np.eye(3))
        for pbc in (CRYSTAL, OPEN):
            found, expected = (one.evaluate(*arguments, pbc) for one in (device, cpu))
            assert found["energy"] == pytest.approx(expected["energy"], rel=1e-12)


@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize("pbc", [OPEN, CRYSTAL, SLAB], ids=["open", "crystal", "slab"])
def test_as_part_of_a_model(tmp_path, local, pbc):
    symbols = ["H", "O"]
    model = build_model(BPNNConfig(cutoff=4.0, hidden=[8]), symbols) if local else NoLocalEnergy(symbols)
    save_model(
        tmp_path / "model.pt",
        model,
        reference_energies={"H": -13.0, "O": -431.0},
        reference_energies_source="given",
        provenance={},
        dispersion=record_of(symbols),
    )
    arguments = (*scattered(28, 30, 2), pbc)
    for precision, tolerance in (("double", 1e-10), ("mixed", 1e-5)):
        found, expected = (
            _core.Evaluator(str(tmp_path / "model.pt"), precision=precision, device=device).evaluate(
                *arguments
            )
            for device in ("cuda", "cpu")
        )
        for key in ("energy", "dispersion_energy", "forces", "virial"):
            scale = np.abs(expected[key]).max()
            np.testing.assert_allclose(found[key], expected[key], rtol=0, atol=tolerance * scale, err_msg=key)


def owners_of(positions, cell, ranks):
    """Slices, any atoms, and one rank that has all."""
    slices = np.minimum((positions @ np.linalg.inv(cell))[:, 0] % 1.0 * ranks, ranks - 1).astype(np.int32)
    yield slices
    yield np.random.default_rng(30).integers(0, ranks, len(positions)).astype(np.int32)
    yield np.full(len(positions), ranks // 2, np.int32)


@BOUNDARIES
@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_several_ranks(pbc, precision, ranks):
    """With atoms in other images of the cell, and lists that are kept."""
    positions, species, cell = scattered(29, 70, 3)
    shifts = np.random.default_rng(31).integers(-2, 3, (70, 3)) * pbc
    device, cpu = both(record_of(["H", "C", "N"]), precision)
    arguments = (positions + shifts @ cell, species, cell, pbc)
    expected = cpu.evaluate(*arguments)
    for owners in owners_of(positions, cell, ranks):
        for drift in (0.0, 0.1):
            found = device.of_ranks(*arguments, owners, ranks, drift)
            assert_same(found, expected, TOLERANCES[precision], ("energies", "forces", "virial"))


@pytest.mark.smallest
@pytest.mark.parametrize("precision", TOLERANCES)
def test_threads_of_several_ranks_in_any_order(thread_order, precision):
    positions, species, cell = scattered(32, 40, 2)
    device, _ = both(record_of(["Si", "O"]), precision)
    owners = np.arange(40, dtype=np.int32) % 3
    result = device.of_ranks(positions, species, cell, CRYSTAL, owners, 3, 0.1)
    first = FIRST_RESULTS.setdefault(("ranks", precision), result)
    for key in ("energy", "energies", "forces", "virial"):
        np.testing.assert_array_equal(result[key], first[key], err_msg=key)


def test_errors():
    record = record_of(["H"])
    with pytest.raises(EvaluationError, match="GPU number 99 was asked for, but this machine has"):
        _core.Dispersion(json.dumps(record), 1, device="cuda:99")
    record = record | {"coordination": [[0.1 * n for n in range(9)]], "c6": [[np.ones((9, 9)).tolist()]]}
    with pytest.raises(EvaluationError, match="has 9 reference systems, but at most 8 run on a GPU"):
        _core.Dispersion(json.dumps(record), 1, device="cuda")
