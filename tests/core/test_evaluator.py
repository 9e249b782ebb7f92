"""The native engine against the TorchScript module, differences, and itself on other instruction sets."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from nearsight.lib import _core
from nearsight.models import ACSFConfig

from .core_models import random_box, save_bpnn

PERIODIC = [True, True, True]


def evaluate(path, structure, pbc=PERIODIC, **options):
    positions, species, cell = structure
    return _core.Evaluator(str(path), **options).evaluate(positions, species, cell, pbc)


@pytest.mark.parametrize("pbc", [PERIODIC, [True, False, True], [False, False, False]])
@pytest.mark.parametrize("fixture", ["bpnn", "two_states", "every_kind", "ani"])
def test_native_equals_torchscript(fixture, pbc, request):
    path = request.getfixturevalue(fixture)
    for seed in range(3):
        structure = random_box(seed)
        native = evaluate(path, structure, pbc, backend="native")
        torchscript = evaluate(path, structure, pbc, backend="torchscript")
        for name in ("energy", "energies", "forces", "virial", "virials"):
            scale = np.abs(torchscript[name]).max()
            assert np.abs(native[name] - torchscript[name]).max() < 1e-10 * scale, name


@pytest.mark.parametrize("cutoff_function", ["cos", "tanh3", "poly1", "poly2", "poly3", "poly4"])
def test_cutoff_functions(cutoff_function, tmp_path):
    path = save_bpnn(tmp_path / "model.pt", descriptor=ACSFConfig(cutoff_function=cutoff_function))
    structure = random_box(5)
    native, torchscript = (evaluate(path, structure, backend=b)["forces"] for b in ("native", "torchscript"))
    assert np.abs(native - torchscript).max() < 1e-11 * np.abs(torchscript).max()


@pytest.mark.parametrize("fixture", ["bpnn", "two_states", "every_kind", "ani"])
def test_mixed_precision(fixture, request):
    path, structure = request.getfixturevalue(fixture), random_box(1)
    double, mixed = (evaluate(path, structure, precision=p) for p in ("double", "mixed"))
    assert abs(double["energy"] - mixed["energy"]) / len(structure[0]) < 5e-6
    assert np.abs(double["forces"] - mixed["forces"]).max() < 5e-5 * np.abs(double["forces"]).max()


@pytest.mark.parametrize("fixture", ["bpnn", "two_states"])
def test_forces_are_differences_of_the_energy(fixture, request):
    path, (positions, species, cell) = request.getfixturevalue(fixture), random_box(2)
    evaluator = _core.Evaluator(str(path))

    def energy(x):
        return evaluator.evaluate(x, species, cell, PERIODIC)["energy"]

    forces = evaluator.evaluate(positions, species, cell, PERIODIC)["forces"]
    numeric = np.zeros_like(forces)
    for index in np.ndindex(*forces.shape):
        values = []
        for step in (1e-3, -1e-3, 5e-4, -5e-4):
            x = positions.copy()
            x[index] += step
            values.append(energy(x))
        coarse, fine = (values[0] - values[1]) / 2e-3, (values[2] - values[3]) / 1e-3
        numeric[index] = -(4 * fine - coarse) / 3  # Richardson: error of fourth order
    assert np.abs(numeric - forces).max() < 1e-7 * np.abs(forces).max()


@pytest.mark.parametrize("fixture", ["bpnn", "two_states"])
def test_virial_is_the_strain_derivative(fixture, request):
    path, (positions, species, cell) = request.getfixturevalue(fixture), random_box(3)
    evaluator = _core.Evaluator(str(path))
    result = evaluator.evaluate(positions, species, cell, PERIODIC)
    numeric = np.zeros((3, 3))
    for a, b in [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)]:
        values = []
        for step in (2e-4, -2e-4, 1e-4, -1e-4):
            strain = np.eye(3)
            strain[a, b] += step / 2
            strain[b, a] += step / 2
            values.append(evaluator.evaluate(positions @ strain, species, cell @ strain, PERIODIC)["energy"])
        coarse, fine = (values[0] - values[1]) / 4e-4, (values[2] - values[3]) / 2e-4
        numeric[a, b] = numeric[b, a] = -(4 * fine - coarse) / 3
    assert np.abs(numeric - result["virial"]).max() < 1e-7 * np.abs(result["virial"]).max()


def test_atoms_add_up(bpnn):
    result = evaluate(bpnn, random_box(4))
    assert result["energies"].sum() == pytest.approx(result["energy"], rel=1e-13)
    v = result["virial"]
    expected = [v[0, 0], v[1, 1], v[2, 2], v[0, 1], v[0, 2], v[1, 2]]
    assert np.allclose(result["virials"].sum(0), expected, rtol=1e-12, atol=1e-12)
    assert np.abs(result["forces"].sum(0)).max() < 1e-12


@pytest.mark.parametrize("fixture", ["bpnn", "two_states"])
def test_threads(fixture, request):
    """Any number of threads agrees; the same number gives the same bits."""
    path, structure = request.getfixturevalue(fixture), random_box(6, n=150, edge=13.0)
    one = evaluate(path, structure, threads=1)
    for threads in (2, 3):
        many, again = (evaluate(path, structure, threads=threads) for _ in range(2))
        assert many["energy"] == pytest.approx(one["energy"], rel=1e-14)
        assert np.allclose(many["forces"], one["forces"], rtol=0, atol=1e-12)
        assert np.allclose(many["virials"], one["virials"], rtol=0, atol=1e-12)
        assert many["energy"] == again["energy"]
        assert (many["forces"] == again["forces"]).all()


def test_skin_changes_nothing(bpnn):
    positions, species, cell = random_box(8)
    skin, fresh = _core.Evaluator(str(bpnn), skin=1.0), _core.Evaluator(str(bpnn))
    rng = np.random.default_rng(0)
    for _ in range(10):
        positions = positions + rng.normal(0, 0.02, positions.shape)
        a, b = (e.evaluate(positions, species, cell, PERIODIC) for e in (skin, fresh))
        assert a["energy"] == pytest.approx(b["energy"], rel=1e-14)
        assert np.allclose(a["forces"], b["forces"], rtol=0, atol=1e-12)
    assert skin.num_list_builds < fresh.num_list_builds == 10


def test_atoms_outside_the_model_do_not_count(bpnn):
    positions, species, cell = random_box(9)
    seen = species.copy()
    seen[::3] = -1
    keep = seen >= 0
    part = evaluate(bpnn, (positions, seen, cell))
    alone = evaluate(bpnn, (positions[keep], species[keep], cell))
    assert part["energy"] == pytest.approx(alone["energy"], rel=1e-14)
    assert np.allclose(part["forces"][keep], alone["forces"], rtol=0, atol=1e-13)
    assert (part["forces"][~keep] == 0).all()


def test_cell_rows_of_open_directions_are_ignored(bpnn):
    positions, species, cell = random_box(11)
    pbc = [True, False, True]
    expected = evaluate(bpnn, (positions, species, cell), pbc)
    cell[1] = np.nan
    assert evaluate(bpnn, (positions, species, cell), pbc)["energy"] == expected["energy"]


def test_no_atoms_and_one_atom(bpnn):
    none = evaluate(bpnn, (np.zeros((0, 3)), np.zeros(0, np.int32), np.eye(3)), [False] * 3)
    assert none["energy"] == 0.0
    for backend in ("native", "torchscript"):
        one = evaluate(
            bpnn, (np.zeros((1, 3)), np.zeros(1, np.int32), np.eye(3)), [False] * 3, backend=backend
        )
        assert np.isfinite(one["energy"])
        assert (one["forces"] == 0).all()


ASK = """
import json, sys
import numpy as np
from nearsight.lib import _core
path, structure = sys.argv[1], json.loads(sys.argv[2])
x, s, c = (np.array(a) for a in structure)
out = {"isa": _core.instruction_set()}
for precision in ("double", "mixed"):
    r = _core.Evaluator(path, precision=precision).evaluate(x, s, c, [True] * 3)
    out[precision] = [r["energy"], r["forces"].tolist()]
print(json.dumps(out))
"""


def ask_instruction_set(isa, path, structure):
    text = json.dumps([a.tolist() for a in structure])
    return subprocess.run(
        [sys.executable, "-c", ASK, str(path), text],
        env=os.environ | {"NEARSIGHT_ISA": isa},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("fixture", ["every_kind", "ani"])
def test_instruction_sets_agree(fixture, request):
    path, structure = request.getfixturevalue(fixture), random_box(10)
    answers = {}
    for isa in ("baseline", "avx2", "avx512"):
        answer = json.loads(ask_instruction_set(isa, path, structure).stdout)
        answers[answer["isa"]] = answer
    assert "baseline" in answers
    for answer in answers.values():
        for precision, tolerance in (("double", 1e-12), ("mixed", 2e-5)):
            reference = answers["baseline"]["double"]
            assert answer[precision][0] == pytest.approx(reference[0], rel=tolerance)
            forces = np.array(reference[1])
            assert np.abs(np.array(answer[precision][1]) - forces).max() < tolerance * np.abs(forces).max()


def test_unknown_instruction_set(every_kind):
    failed = ask_instruction_set("sse9", every_kind, random_box(10))
    assert failed.returncode != 0
    assert "NEARSIGHT_ISA is 'sse9', expected avx512, avx2 or baseline" in failed.stderr


@pytest.mark.parametrize(("members", "hidden"), [(1, [80]), (3, [20, 7]), (4, [70, 90])])
def test_committees_and_wide_networks(members, hidden, tmp_path):
    """Export compares double with the module; networks wider than 64 are in single precision in mixed."""
    path = save_bpnn(tmp_path / "model.pt", members=members, hidden=hidden)
    x, s, cell = random_box(3)
    results = [
        _core.Evaluator(str(path), precision=precision).evaluate(x, s, cell, [True] * 3)
        for precision in ("double", "mixed")
    ]
    assert abs(results[0]["energy"] - results[1]["energy"]) < 1e-5 * len(s)
    assert np.abs(results[0]["forces"] - results[1]["forces"]).max() < 1e-4
