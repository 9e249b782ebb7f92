"""The native engine of MACE against the torch module, which is the oracle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from message_passing_models import BOTH_PARITIES, derivative, rotation

from nearsight.couple import evaluate
from nearsight.errors import EvaluationError, ModelFileError
from nearsight.export import save_model
from nearsight.lib import _core
from nearsight.models import MACE, MACEConfig, build_model
from nearsight.neighbors import make_graph

SPECIES = ["H", "C", "O"]
CUTOFF = 4.0
CELL = np.array([[6.4, 0.0, 0.0], [0.9, 6.6, 0.0], [-0.5, 0.6, 7.6]])
CONFIGS = {
    "local": {"channels": 5, "zbl": True, "walls": True},
    "scalars": {"channels": 16, "num_interactions": 2, "hidden": "0e", "correlation": 2},
    "vectors": {
        "channels": 20,
        "num_interactions": 2,
        "zbl": True,
        "walls": True,
        "radial": {"transform": "agnesi"},
    },
    "tensors": {"channels": 3, "num_interactions": 2, "hidden": "0e + 1o + 2e", "correlation": 2},
    "both parities": BOTH_PARITIES,
    "gaussians": {
        "channels": 4,
        "num_interactions": 2,
        "l_max": 1,
        "correlation": 1,
        "density": True,
        "radial": {"basis": "gaussian", "transform": "soft", "hidden": [8]},
    },
}


def make(name: str) -> MACE:
    torch.manual_seed(1)
    model = build_model(MACEConfig(cutoff=CUTOFF, **CONFIGS[name]), SPECIES)
    model.fit_statistics([make_graph(*crystal(5), CUTOFF)], 1.0)
    model.walls.limits.copy_(torch.tensor([1.4, 1.6, 3.0]))
    return selecting(model) if name == "vectors" else model


def selecting(model: MACE) -> MACE:
    """The model with random weights `select`, which imported models have."""
    record, weights = model.record(), dict(model.weights())
    k = record["channels"]
    for t, layer in enumerate(record["layers"]):
        for which in layer["message"]:
            shape = (len(SPECIES), k, k)
            weights[f"layers.{t}.select.{which}"] = torch.randn(shape, dtype=torch.float64) / k**0.5
    return MACE(SPECIES, CUTOFF, record, weights)


def save(model: MACE, path: Path) -> Path:
    references = dict.fromkeys(SPECIES, 0.0)
    save_model(path, model, reference_energies=references, reference_energies_source="given", provenance={})
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, tuple[MACE, Path]]:
    folder = tmp_path_factory.mktemp("mace")
    found = {}
    for name in CONFIGS:
        model = make(name)
        found[name] = (model, save(model, folder / f"{name.replace(' ', '_')}.pt"))
    return found


def crystal(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[bool]]:
    """36 atoms, more than a tile of receivers, in a triclinic cell shorter than two cutoffs."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(np.arange(3) / 3, np.arange(3) / 3, np.arange(4) / 4), -1).reshape(-1, 3)
    positions = (grid + 0.04 * rng.normal(size=grid.shape)) @ CELL
    return positions, rng.integers(0, 3, len(grid)).astype(np.int32), CELL, [True] * 3


def molecule(seed: int = 0, count: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[bool]]:
    positions, species, _, _ = crystal(seed)
    return positions[:count], species[:count], np.zeros((3, 3)), [False] * 3


def lone_atoms() -> tuple[np.ndarray, np.ndarray, np.ndarray, list[bool]]:
    """A dimer and an atom without neighbors."""
    positions = np.array([[0.0, 0, 0], [0, 0, 1.1], [9, 9, 9]])
    return positions, np.array([0, 2, 1], dtype=np.int32), np.zeros((3, 3)), [False] * 3


STRUCTURES = {"crystal": crystal(), "molecule": molecule(), "lone atoms": lone_atoms()}


def run(path: Path, structure, **options) -> dict:
    return _core.Evaluator(str(path), **{"backend": "native"} | options).evaluate(*structure)


def expected(model: MACE, structure) -> dict:
    results = evaluate(model, make_graph(*structure, CUTOFF), {"kind": "sum"})
    return {key: getattr(results, key).detach().squeeze(0).numpy() for key in ("energy", "forces", "virial")}


def close(found: dict, wanted: dict, relative: float) -> None:
    for key, value in wanted.items():
        scale = max(np.abs(value).max(), 1e-3)
        np.testing.assert_allclose(found[key], value, rtol=0, atol=relative * scale, err_msg=key)


@pytest.mark.parametrize("structure", list(STRUCTURES))
@pytest.mark.parametrize("name", list(CONFIGS))
def test_native_equals_torch(models, name, structure):
    model, path = models[name]
    wanted = expected(model, STRUCTURES[structure])
    close(run(path, STRUCTURES[structure]), wanted, 1e-9)
    mixed = run(path, STRUCTURES[structure], precision="mixed")
    largest = max(np.abs(wanted["forces"]).max(), 10.0)
    np.testing.assert_allclose(mixed["forces"], wanted["forces"], rtol=0, atol=1e-5 * largest)
    assert mixed["energy"] == pytest.approx(float(wanted["energy"]), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("name", list(CONFIGS))
def test_analytic_radial_functions(models, name, monkeypatch):
    model, path = models[name]
    monkeypatch.setenv("NEARSIGHT_RADIALS", "analytic")
    for structure in (STRUCTURES["molecule"], STRUCTURES["lone atoms"]):
        close(run(path, structure), expected(model, structure), 1e-11)


def test_tables_resolve_densities(tmp_path):
    """tanh² of a network of Bessel functions is rougher than what the networks of the messages see."""
    torch.manual_seed(1)
    config = MACEConfig(cutoff=CUTOFF, channels=4, l_max=1, correlation=1, density=True)
    model = build_model(config, SPECIES)
    model.fit_statistics([make_graph(*crystal(5), CUTOFF)], 1.0)
    path = save(model, tmp_path / "model.pt")
    for structure in STRUCTURES.values():
        close(run(path, structure), expected(model, structure), 1e-9)


def test_radial_functions_are_chosen_by_name(models, monkeypatch):
    monkeypatch.setenv("NEARSIGHT_RADIALS", "splines")
    with pytest.raises(
        EvaluationError, match=r"NEARSIGHT_RADIALS is 'splines' .*expected tables or analytic"
    ):
        run(models["local"][1], STRUCTURES["molecule"])


@pytest.mark.parametrize("precision", ["double", "mixed"])
@pytest.mark.parametrize("name", ["local", "both parities"])
def test_threads(models, name, precision):
    """The same bits at every run, and round-off between numbers of threads."""
    path, structure = models[name][1], STRUCTURES["crystal"]
    one, two, again = (run(path, structure, precision=precision, threads=n) for n in (1, 2, 2))
    close(two, {key: one[key] for key in ("energies", "forces")}, 1e-13 if precision == "double" else 1e-5)
    for key, value in two.items():
        np.testing.assert_array_equal(again[key], value)


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_instruction_sets_agree(models, isa, tmp_path):
    """In a process of its own, since the choice is made once."""
    path, structure = models["tensors"][1], STRUCTURES["crystal"]
    np.savez(tmp_path / "structure.npz", *structure)
    code = (
        "import json, numpy as np; from nearsight.lib import _core; "
        f"s = np.load({str(tmp_path / 'structure.npz')!r}); s = [s[name] for name in s.files]; "
        f"run = lambda p: _core.Evaluator({str(path)!r}, 'native', p).evaluate(*s[:3], s[3].tolist()); "
        "print(json.dumps([run(p)['forces'].tolist() for p in ('double', 'mixed')]))"
    )
    environment = os.environ | {"NEARSIGHT_ISA": isa}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for found, precision, limit in zip(json.loads(done.stdout), ("double", "mixed"), (1e-12, 1e-5)):
        here = run(path, structure, precision=precision)
        close({"forces": np.array(found)}, {"forces": here["forces"]}, limit)


@pytest.mark.parametrize("name", list(CONFIGS))
def test_forces_are_central_differences(models, name):
    """Also of interpolated radial functions: the forces are the derivative of what is evaluated."""
    positions, species, cell, pbc = STRUCTURES["crystal"]
    evaluator = _core.Evaluator(str(models[name][1]), backend="native")
    forces = evaluator.evaluate(positions, species, cell, pbc)["forces"]

    def energy(moved: np.ndarray) -> float:
        return evaluator.evaluate(moved, species, cell, pbc)["energy"]

    for atom, axis in ((0, 0), (13, 1), (35, 2)):
        slope = derivative(energy, positions, atom, axis)
        assert -slope == pytest.approx(forces[atom, axis], abs=2e-8 * np.abs(forces).max())


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", list(CONFIGS))
def test_rotation_reflection_translation_permutation(models, name, sign):
    """Of interpolated radial functions and sums in the order of the atoms."""
    evaluator = _core.Evaluator(str(models[name][1]), backend="native")
    positions, species, cell, pbc = STRUCTURES["crystal"]
    turn, order = sign * rotation(4), np.random.default_rng(1).permutation(len(species))
    found = evaluator.evaluate(positions, species, cell, pbc)
    moved = (positions @ turn.T + [3.0, -5.0, 7.0])[order]
    wanted = {
        "energy": found["energy"],
        "energies": found["energies"][order],
        "forces": (found["forces"] @ turn.T)[order],
        "virial": turn @ found["virial"] @ turn.T,
    }
    close(evaluator.evaluate(moved, species[order], cell @ turn.T, pbc), wanted, 1e-11)


@pytest.mark.parametrize("name", list(CONFIGS))
def test_smooth_through_the_cutoff(models, name):
    """An atom that only one other sees leaves its cutoff: nothing but their edge can make a difference."""
    evaluator = _core.Evaluator(str(models[name][1]), backend="native")
    positions, species, cell, pbc = molecule()
    first = int(np.argmin(positions[:, 0]))
    found = []
    for distance in (CUTOFF - 1e-6, CUTOFF + 1e-6):
        outer = positions[first] - [distance, 0.0, 0.0]
        found.append(evaluator.evaluate(np.vstack([positions, outer]), np.append(species, 1), cell, pbc))
    others = np.linalg.norm(np.delete(positions, first, 0) - outer, axis=1)
    assert others.min() > CUTOFF + 0.01
    assert abs(found[0]["energy"] - found[1]["energy"]) < 1e-9
    np.testing.assert_allclose(found[0]["forces"], found[1]["forces"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", list(CONFIGS))
def test_twice_the_cell_has_twice_the_energy(models, name):
    evaluator = _core.Evaluator(str(models[name][1]), backend="native")
    positions, species, cell, pbc = STRUCTURES["crystal"]
    found = evaluator.evaluate(positions, species, cell, pbc)
    wanted = {
        "energy": 2 * found["energy"],
        "forces": np.tile(found["forces"], (2, 1)),
        "virial": 2 * found["virial"],
    }
    double = cell * [[2.0], [1.0], [1.0]]
    twice = evaluator.evaluate(np.vstack([positions, positions + cell[0]]), np.tile(species, 2), double, pbc)
    close(twice, wanted, 1e-11)


def test_too_close_atoms_repel_with_a_warning(models, capfd):
    """Below the first knot the forces still belong to the energy."""
    evaluator = _core.Evaluator(str(models["local"][1]), backend="native")
    species, cell, pbc = np.array([0, 0], dtype=np.int32), np.zeros((3, 3)), [False] * 3

    def at(distance: float) -> dict:
        return evaluator.evaluate(np.array([[0.0, 0, 0], [0, 0, distance]]), species, cell, pbc)

    r, step = 0.06, 1e-6
    assert (at(r - step)["energy"] - at(r + step)["energy"]) / (2 * step) == pytest.approx(
        at(r)["forces"][1, 2], rel=1e-6
    )
    assert at(r)["forces"][1, 2] > 1e3
    assert at(0.1 - 1e-9)["energy"] == pytest.approx(at(0.1 + 1e-9)["energy"], rel=1e-6)
    message = capfd.readouterr().err
    assert message.count("nearsight: warning: two atoms are 0.0") == 1
    assert "where the radial functions of the model begin" in message


def test_models_without_code_run_on_torchscript(tmp_path, capfd):
    config = MACEConfig(cutoff=CUTOFF, channels=2, l_max=4, correlation=1)
    path = save(build_model(config, SPECIES), tmp_path / "high.pt")
    assert _core.Evaluator(str(path)).backend == "torchscript"
    said = capfd.readouterr().err
    assert said.count("nearsight: warning:") == said.count("\n") >= 1
    assert "runs on the torchscript backend, since the native engine has no code for it" in said
    reason = "no code for .*because the harmonics go to l = 4, it has code up to 3: use backend torchscript"
    with pytest.raises(EvaluationError, match=reason):
        run(path, STRUCTURES["molecule"])


def test_weights_that_do_not_fit_the_readouts(models, tmp_path):
    target = tmp_path / "columns.pt"
    with zipfile.ZipFile(models["local"][1]) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("nearsight.json"):
                metadata = json.loads(content)
                metadata["readouts"][0]["columns"] = metadata["couple"]["members"] = 2
                content = json.dumps(metadata).encode()
            new.writestr(name, content)
    with pytest.raises(ModelFileError, match=r"'scale' have shape \[1\], expected \[2\]: export"):
        run(target, STRUCTURES["molecule"])


def test_features_that_overflow_name_the_atom(tmp_path):
    """Single precision ends at 3e38."""
    model = make("scalars")
    with torch.no_grad():
        weights = dict(model.weights())
        weights["layers.1.product.weights"] = weights["layers.1.product.weights"] * 1e39
        weights["layers.1.readout.0.weight"] = weights["layers.1.readout.0.weight"] * 1e-39
    path = save(MACE(SPECIES, CUTOFF, model.record(), weights), tmp_path / "large.pt")
    structure = STRUCTURES["molecule"]
    assert np.isfinite(run(path, structure)["energy"])
    with pytest.raises(EvaluationError) as caught:
        run(path, structure, precision="mixed")
    assert "energy and features of atom" in str(caught.value)
    assert "are not finite numbers; it has 3 neighbors, the nearest are" in str(caught.value)
