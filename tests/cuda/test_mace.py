"""Message passing on a GPU against the CPU's engine."""

import numpy as np
import pytest
from core.charge_models import case, random_model
from core.test_charge_models import save as save_charged
from message_passing_models import derivative
from test_mace_engine import CONFIGS, CUTOFF, SPECIES, STRUCTURES, crystal, make, molecule, save

from nearsight.errors import EvaluationError
from nearsight.lib import _core
from nearsight.models import MACEConfig, build_model

from . import domains

MORE = {  # what the configurations of the CPU's tests do not have
    "three interactions": {"channels": 4, "num_interactions": 3, "l_max": 1, "radial": {"hidden": [8]}},
    "two lanes": {
        "channels": 64,
        "num_interactions": 2,
        "l_max": 1,
        "correlation": 2,
        "radial": {"hidden": []},
    },
    "no directions": {"channels": 33, "num_interactions": 2, "l_max": 0, "radial": {"hidden": []}},
}
NAMES = [*CONFIGS, *MORE]


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mace")
    found = {name: save(make(name), folder / f"{name}.pt") for name in CONFIGS}
    for name, config in MORE.items():
        found[name] = save(build_model(MACEConfig(cutoff=CUTOFF, **config), SPECIES), folder / f"{name}.pt")
    return found


def run(path, structure, **options) -> dict:
    return _core.Evaluator(str(path), **{"backend": "native", "device": "cuda"} | options).evaluate(
        *structure
    )


def same(found: dict, wanted: dict, relative: float) -> None:
    for key in ("energy", "energies", "forces", "virial"):
        scale = max(np.abs(wanted[key]).max(), 1e-3)
        np.testing.assert_allclose(found[key], wanted[key], rtol=0, atol=relative * scale, err_msg=key)


def small_cell():
    """Twelve atoms in a periodic cell of one and a half cutoffs."""
    rng = np.random.default_rng(8)
    grid = np.stack(np.meshgrid(np.arange(2), np.arange(2), np.arange(3)), -1).reshape(-1, 3) / [2, 2, 3]
    cell = np.array([[6.0, 0, 0], [0.4, 6.1, 0], [0, 0.3, 6.2]])
    return (
        (grid + 0.03 * rng.normal(size=grid.shape)) @ cell,
        rng.integers(0, 3, 12).astype(np.int32),
        cell,
        [True] * 3,
    )


@pytest.mark.parametrize("structure", list(STRUCTURES))
@pytest.mark.parametrize("name", NAMES)
def test_equals_the_cpu(paths, name, structure):
    wanted = run(paths[name], STRUCTURES[structure], device="cpu")
    same(run(paths[name], STRUCTURES[structure]), wanted, 1e-10)
    mixed = run(paths[name], STRUCTURES[structure], precision="mixed")
    largest = max(np.abs(wanted["forces"]).max(), 10.0)
    np.testing.assert_allclose(mixed["forces"], wanted["forces"], rtol=0, atol=1e-5 * largest)
    assert mixed["energy"] == pytest.approx(float(wanted["energy"]), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("precision", ["double", "mixed"])
@pytest.mark.parametrize("name", NAMES)
def test_threads_in_any_order(paths, name, precision, monkeypatch):
    found = []
    for order in ("forward", "reverse"):
        monkeypatch.setenv("NEARSIGHT_EMULATION_ORDER", order)
        found.append(run(paths[name], small_cell(), precision=precision))
    for key in ("energy", "energies", "forces", "virial"):
        np.testing.assert_array_equal(found[0][key], found[1][key])


@pytest.mark.parametrize("name", ["local", "vectors"])
def test_forces_are_derivatives(paths, name):
    positions, species, cell, pbc = molecule(4)
    evaluator = _core.Evaluator(str(paths[name]), backend="native", device="cuda")

    def energy(moved):
        return evaluator.evaluate(moved, species, cell, pbc)["energy"]

    forces = evaluator.evaluate(positions, species, cell, pbc)["forces"]
    for atom, axis in ((0, 0), (2, 1), (4, 2)):
        assert forces[atom, axis] == pytest.approx(-derivative(energy, positions, atom, axis), abs=2e-7)


@pytest.mark.parametrize("precision", ["double", "mixed"])
@pytest.mark.parametrize("name", ["scalars", "gaussians"])
def test_atoms_on_top_of_each_other_are_kept_apart(paths, name, precision):
    """Below 0.1 Å radial functions stay what they are, and the energy is 100 eV (0.1 Å/r - 1)²."""

    def dimer(r):
        positions, species = np.array([[0.0, 0, 0], [0, r, 0]]), np.array([0, 1], np.int32)
        return run(paths[name], (positions, species, np.zeros((3, 3)), [False] * 3), precision=precision)

    near, far = dimer(0.05), dimer(0.08)
    relative = 1e-10 if precision == "double" else 1e-5
    assert near["energy"] - far["energy"] == pytest.approx(100 * (1.0 - 0.25**2), rel=relative)
    for found, r in ((near, 0.05), (far, 0.08)):
        force = 200 * (0.1 / r - 1) * 0.1 / r**2
        np.testing.assert_allclose(found["forces"][1], [0, force, 0], rtol=relative, atol=relative * force)


def test_the_oracle_is_of_cpus(paths, monkeypatch):
    monkeypatch.setenv("NEARSIGHT_RADIALS", "analytic")
    with pytest.raises(EvaluationError, match="NEARSIGHT_RADIALS is analytic in the environment, which only"):
        run(paths["local"], molecule())


def test_one_evaluator_for_one_structure_after_the_other(paths):
    """Also with species that it has not seen before."""
    evaluator = _core.Evaluator(str(paths["vectors"]), backend="native", device="cuda")
    few = molecule(1)
    few = (few[0], np.zeros_like(few[1]), *few[2:])
    for structure in (few, crystal(1), molecule(2), crystal(2), few):
        same(evaluator.evaluate(*structure), run(paths["vectors"], structure, device="cpu"), 1e-10)


def test_tiles_change_nothing(paths, monkeypatch):
    """A card with little memory sees few atoms of a model of one interaction at once."""
    positions, species, cell, pbc = crystal(2)
    twice = np.concatenate([positions, positions + cell[0], positions + 2 * cell[0]])
    larger = (twice, np.tile(species, 3), cell * np.array([[3.0], [1], [1]]), pbc)
    whole = run(paths["local"], larger)
    monkeypatch.setenv("NEARSIGHT_EMULATED_BYTES", str(16 * 2**20))
    parts = run(paths["local"], larger)
    same(parts, whole, 1e-12)
    same(parts, run(paths["local"], larger, device="cpu"), 1e-10)


@pytest.mark.parametrize("kind", ["environment", "latent"])
@pytest.mark.parametrize("architecture", ["mace", "mace with messages"])
def test_charges(tmp_path, kind, architecture):
    """Readouts with several columns."""
    path = tmp_path / "model.pt"
    save_charged(path, random_model(kind, architecture=architecture))
    structure = case("triclinic", False, kind)
    found = [
        _core.Evaluator(str(path), backend="native", device=device).evaluate(*structure)
        for device in ("cpu", "cuda")
    ]
    for key in ("energy", "forces", "charges"):
        scale = np.abs(found[0][key]).max()
        np.testing.assert_allclose(found[1][key], found[0][key], rtol=0, atol=1e-9 * scale, err_msg=key)


@pytest.mark.parametrize("num_ranks", [1, 2])
@pytest.mark.parametrize("name", ["vectors", "both parities", "three interactions"])
def test_features_travel_between_ranks(paths, name, num_ranks):
    wanted = run(paths[name], small_cell(), device="cpu")
    ranks = domains.split(small_cell(), num_ranks, CUTOFF, 0.0)
    energy, forces = domains.evaluate(paths[name], ranks, exchange=True)
    assert energy == pytest.approx(float(wanted["energy"]), rel=1e-10, abs=1e-10)
    np.testing.assert_allclose(forces, wanted["forces"], rtol=0, atol=1e-10 * np.abs(wanted["forces"]).max())


@pytest.mark.parametrize("name", ["local", "scalars"])
def test_ghosts_that_are_centers(paths, name):
    layers = 1 if name == "local" else 2
    wanted = run(paths[name], small_cell(), device="cpu")
    ranks = domains.split(small_cell(), 2, layers * CUTOFF, (layers - 1) * CUTOFF)
    energy, forces = domains.evaluate(paths[name], ranks, exchange=False)
    assert energy == pytest.approx(float(wanted["energy"]), rel=1e-10, abs=1e-10)
    np.testing.assert_allclose(forces, wanted["forces"], rtol=0, atol=1e-10 * np.abs(wanted["forces"]).max())
