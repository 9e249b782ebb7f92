"""Charges that equilibrate: closed forms, dense oracle, derivatives, warm starts, what is refused."""

from __future__ import annotations

import math
from ctypes import byref

import numpy as np
import pytest

from nearsight import Potential
from nearsight.errors import EvaluationError, ModelFileError
from nearsight.lib import _core
from nearsight.models import LongRangeConfig
from nearsight.units import COULOMB

from .c_api import load_model, make_evaluator, open_library, results_for, system_of
from .charge_models import CELLS, REFERENCE_ENERGIES, SPECIES, Case, case
from .charged_systems import OPEN, PERIODIC, SLAB, random_system
from .equilibrated_files import HARDNESS, WIDTHS, electronegativities, equilibrated, matrix, solve
from .test_charge_models import PLACES, assert_close
from .test_errors import edited
from .test_field import FIELD, NORMAL, moved, slope, strained


@pytest.fixture(scope="module")
def fine(tmp_path_factory):
    """A model and its file, solved to round-off on a fine mesh."""
    return equilibrated(tmp_path_factory.mktemp("fine"), rtol=1e-10, residual=1e-13)


@pytest.fixture(scope="module")
def coarse(tmp_path_factory):
    return equilibrated(tmp_path_factory.mktemp("coarse"))


@pytest.mark.parametrize("charge", [0.0, 1.0])
def test_two_atoms(fine, charge):
    """q = (χ₂ - χ₁ + Q (d₂ - J₁₂)) / (d₁ + d₂ - 2 J₁₂) at all distances, d = J + k/(√π σ)."""
    model, path = fine
    evaluator = _core.Evaluator(str(path))
    own = [HARDNESS[s] + COULOMB / (np.sqrt(np.pi) * WIDTHS[s]) for s in SPECIES]
    for distance in (0.3, 0.7, 1.0, 1.7, 3.0, 6.0, 15.0, 100.0):
        positions = np.array([[0.1, -0.2, 0.3], [0.1, -0.2, 0.3 + distance]])
        one = Case(positions, np.array([0, 1], dtype=np.int32), np.eye(3), OPEN, charge)
        chi = electronegativities(model, one)
        reach = distance / np.sqrt(2 * (WIDTHS["H"] ** 2 + WIDTHS["O"] ** 2))
        pair = COULOMB * math.erf(reach) / distance
        first = (chi[1] - chi[0] + charge * (own[1] - pair)) / (own[0] + own[1] - 2 * pair)
        q = np.array([first, charge - first])
        energy = chi @ q + 0.5 * (own * q**2).sum() + pair * q.prod()
        found = evaluator.evaluate(*one)
        np.testing.assert_allclose(found["charges"][:, 0], q, rtol=0, atol=1e-13)
        assert found["electrostatic_energy"] == pytest.approx(energy, rel=1e-12)


def random_case(seed: int) -> Case:
    """Random atoms, every other system charged; 3D (triclinic or orthorhombic), slabs and open ones."""
    pbc = [PERIODIC, SLAB, OPEN][seed % 3]
    system = random_system(seed, 6 + seed % 9, pbc=pbc, orthorhombic=seed % 4 == 0, spacing=2.4)
    species = np.random.default_rng(seed).integers(0, 2, len(system.charges)).astype(np.int32)
    return Case(system.positions, species, system.cell, pbc, (seed % 2) * (seed % 5 - 1.5))


@pytest.mark.parametrize("seed", range(50))
def test_dense_oracle(fine, seed):
    model, path = fine
    one = random_case(seed)
    chi, dense = electronegativities(model, one), matrix(one)
    expected = solve(dense, chi, one.charge)
    found = _core.Evaluator(str(path)).evaluate(*one)
    q = found["charges"][:, 0]
    np.testing.assert_allclose(q, expected, rtol=0, atol=1e-10 * np.abs(expected).max())
    assert q.sum() == pytest.approx(one.charge, abs=1e-12)
    energy = chi @ expected + 0.5 * expected @ dense @ expected
    assert found["electrostatic_energy"] == pytest.approx(energy, rel=1e-9)
    reference = sum(REFERENCE_ENERGIES[SPECIES[z]] for z in one.species)
    assert found["energies"].sum() == pytest.approx(found["energy"], rel=1e-14)
    assert np.isfinite(found["energy"] - reference)


def test_the_energy_is_stationary(fine):
    """Charges that are a little wrong change the energy in second order only, and raise it."""
    model, path = fine
    one = case("triclinic", True, "")
    chi, dense = electronegativities(model, one), matrix(one)
    q = _core.Evaluator(str(path)).evaluate(*one)["charges"][:, 0]
    change = np.random.default_rng(3).normal(size=len(q))
    change -= change.mean()
    energies = {t: chi @ (q + t * change) + 0.5 * (q + t * change) @ dense @ (q + t * change)
                for t in (-1e-3, -1e-4, 0.0, 1e-4, 1e-3)}  # fmt: skip
    curvature = change @ dense @ change
    for t in (1e-4, 1e-3):
        assert abs(energies[t] - energies[-t]) < 1e-8 * t * np.abs(dense @ change).max()
        assert energies[t] - energies[0] == pytest.approx(0.5 * t**2 * curvature, rel=1e-5)


@pytest.fixture(scope="module", params=["bpnn", "mace with messages"])
def differentiable(request, tmp_path_factory):
    options = {"architecture": request.param, "rtol": 1e-9, "residual": 1e-12}
    return equilibrated(tmp_path_factory.mktemp("differentiable"), **options)[1]


@pytest.mark.parametrize("charged", [False, True], ids=["neutral", "charged"])
@pytest.mark.parametrize("cell", CELLS)
def test_forces_and_virial_are_differences_of_the_energy(differentiable, cell, charged):
    evaluator = _core.Evaluator(str(differentiable))
    check_derivatives(evaluator, case(cell, charged, ""), np.zeros(3), list(zip(*PLACES)))


@pytest.mark.parametrize(("cell", "field"), [("open", FIELD), ("slab", NORMAL)])
def test_derivatives_in_a_field(fine, cell, field):
    """Of a slab all components of strain but those that turn its plane, which depend on the images."""
    places = [place for place in zip(*PLACES) if cell == "open" or place not in ((0, 2), (1, 2))]
    check_derivatives(_core.Evaluator(str(fine[1])), case(cell, True, ""), field, places)


def check_derivatives(evaluator, one, field, places):
    found = evaluator.evaluate(*one, field)
    some = [(0, 0), (3, 1), (7, 2), (11, 0)]
    forces = [-slope(evaluator, field, moved(one, *place), 2e-4) for place in some]
    assert_close([found["forces"][place] for place in some], forces, 1e-7)
    virial = [-slope(evaluator, field, strained(one, *place), 2e-4) for place in places]
    assert_close([found["virial"][place] for place in places], virial, 1e-7)


def test_charges_answer_to_a_field(fine):
    """dE/dF = -μ, and the dipole grows along the field."""
    potential, one = Potential(fine[1]), case("open", True, "")
    dipole, step = potential.compute_indices(*one).dipole, 1e-3
    for axis, unit in enumerate(np.eye(3)):
        ahead, behind = (potential.compute_indices(*one, k * step * unit) for k in (1, -1))
        slope = (ahead.energy - behind.energy) / (2 * step)
        assert slope == pytest.approx(-dipole[axis], rel=1e-7, abs=1e-7)
        assert ahead.dipole[axis] - behind.dipole[axis] > 0.1 * step


def test_fields_along_periodic_directions(coarse):
    with pytest.raises(EvaluationError, match="field has a component along a periodic direction, where it"):
        Potential(coarse[1]).compute_indices(*case("triclinic", False, ""), FIELD)


@pytest.mark.parametrize("options", [{"backend": "torchscript"}, {"precision": "mixed"}, {"threads": 3}])
def test_backends_precisions_threads(coarse, options, monkeypatch):
    monkeypatch.setenv("NEARSIGHT_RESIDUAL", "1e-13")
    one = case("triclinic", True, "")
    expected = _core.Evaluator(str(coarse[1])).evaluate(*one)
    found = _core.Evaluator(str(coarse[1]), **{"precision": "double"} | options).evaluate(*one)
    tolerance = 1e-5 if options.get("precision") == "mixed" else 1e-11
    for name in ("charges", "forces", "virial", "potentials"):
        assert_close(found[name], expected[name], tolerance)


def with_couple(source, target, **change):
    return edited(source, target, lambda metadata: metadata["couple"].update(change))


def test_the_residual_is_what_was_asked_for(tmp_path):
    """|P (b - A q)| relative to what d q would be if charges had no potential."""
    one = case("triclinic", True, "")
    model, fine = equilibrated(tmp_path, rtol=1e-10)
    for residual in (1e-2, 1e-4, 1e-6, 1e-10):
        path = with_couple(fine, tmp_path / "x.pt", residual=residual)
        chi, dense = electronegativities(model, one), matrix(one)
        widths, hardness = (np.array([of[SPECIES[z]] for z in one.species]) for of in (WIDTHS, HARDNESS))
        own = hardness + COULOMB / (np.sqrt(np.pi) * widths)
        level = (one.charge + (chi / own).sum()) / (1 / own).sum()
        q = _core.Evaluator(str(path)).evaluate(*one)["charges"][:, 0]
        left = -chi - dense @ q
        found = np.linalg.norm(left - left.mean()) / np.linalg.norm(level - chi)
        assert 1e-4 * residual < found < 1.001 * residual


def trajectory(one: Case, steps: int):
    """Atoms on harmonic paths."""
    rng = np.random.default_rng(5)
    amplitude = 0.05 * rng.normal(size=one.positions.shape)
    rate = rng.uniform(0.05, 0.3, one.positions.shape)
    return [one._replace(positions=one.positions + amplitude * np.sin(rate * t)) for t in range(steps)]


@pytest.mark.parametrize("cell", ["triclinic", "open", "slab"])
def test_warm_starts(coarse, cell):
    """Fewer steps, the same charges and energy to the residual; other atoms begin anew."""
    frames = trajectory(case(cell, True, ""), 20)
    warm, steps = _core.Evaluator(str(coarse[1])), []
    for frame in frames:
        found, cold = warm.evaluate(*frame), _core.Evaluator(str(coarse[1])).evaluate(*frame)
        steps.append((found["equilibration_steps"], cold["equilibration_steps"]))
        np.testing.assert_allclose(found["charges"], cold["charges"], rtol=0, atol=1e-5)
        if cell == "open":  # others keep the mesh of the first frame
            assert found["energy"] == pytest.approx(cold["energy"], abs=1e-9)
    first, last = steps[0], np.mean(steps[8:], axis=0)
    assert first[0] == first[1]
    assert last[0] < 0.7 * last[1]
    swapped = frames[-1]._replace(species=np.roll(frames[-1].species, 1))
    fresh = _core.Evaluator(str(coarse[1])).evaluate(*swapped)
    assert warm.evaluate(*swapped)["equilibration_steps"] == fresh["equilibration_steps"]


def test_a_second_look_is_no_step(coarse):
    """Evaluations of the same structure, as at the beginning of a run, cost later ones nothing."""
    plain, curious = (_core.Evaluator(str(coarse[1])) for _ in range(2))
    for number, frame in enumerate(trajectory(case("open", True, ""), 24)):
        expected, found = plain.evaluate(*frame), curious.evaluate(*frame)
        assert abs(found["equilibration_steps"] - expected["equilibration_steps"]) <= 1
        for _ in range(number % 3):
            curious.evaluate(*frame)


def test_after_a_jump(coarse):
    """Guesses from elsewhere cost steps, no accuracy."""
    warm, one = _core.Evaluator(str(coarse[1])), case("open", True, "")
    for scale, charge in ((1, 0), (1.3, 1), (0.9, -1), (1, 1e6), (1, 1e6), (1.01, 0), (1, 0), (1.2, 3)):
        frame = one._replace(positions=scale * one.positions, charge=charge)
        found, cold = warm.evaluate(*frame), _core.Evaluator(str(coarse[1])).evaluate(*frame)
        np.testing.assert_allclose(found["charges"], cold["charges"], rtol=0, atol=1e-5 * max(1.0, charge))
        assert found["charges"].sum() == pytest.approx(charge, abs=1e-12 * max(1.0, charge))


def test_equal_atoms_have_no_charges(coarse):
    box = 8.0 * np.eye(3)
    pair = Case(np.array([[0.0, 0, 0], [1, 0, 0]]), np.zeros(2, dtype=np.int32), box, PERIODIC, 0.0)
    evaluator = _core.Evaluator(str(coarse[1]))
    assert np.abs(evaluator.evaluate(*pair)["charges"]).max() < 1e-13
    found = evaluator.evaluate(*pair._replace(charge=1.0))
    np.testing.assert_allclose(found["charges"], 0.5, atol=1e-12)
    alone = pair._replace(positions=pair.positions[:1], species=pair.species[:1], charge=1.0)
    assert evaluator.evaluate(*alone)["charges"].item() == pytest.approx(1.0, abs=1e-14)
    nothing = Case(np.zeros((0, 3)), np.zeros(0, dtype=np.int32), box, PERIODIC, 0.0)
    assert evaluator.evaluate(*nothing)["energy"] == 0.0


def test_results_of_python(coarse):
    one = case("open", True, "")
    found = Potential(coarse[1]).compute_indices(*one)
    assert found.equilibration_steps > 1
    assert found.dipole == pytest.approx(found.charges[:, 0] @ one.positions)
    for wanted, message in (
        (
            "born_charges",
            "Born effective charges of equilibrated charges, which depend on all atoms, are not",
        ),
        ("members", "is no committee, so there are no results of its members: merge several models"),
    ):
        with pytest.raises(EvaluationError, match=message):
            Potential(coarse[1]).compute_indices(*one, **{wanted: True})


def test_born_charges_of_several_interactions(tmp_path):
    """They would come from forces in fields, which are not linear in these."""
    _, path = equilibrated(tmp_path, architecture="mace with messages")
    with pytest.raises(EvaluationError, match="Born effective charges of equilibrated charges, which depend"):
        Potential(path).compute_indices(*case("open", True, ""), born_charges=True)


@pytest.mark.parametrize(
    "change",
    [{"hardness": [1.0]}, {"widths": None}, {"widths": [0.5, 0.0]}, {"channels": 2}, {"weighted": True}],
)
def test_damaged_records(coarse, tmp_path, change):
    path = with_couple(coarse[1], tmp_path / "x.pt", **change)
    with pytest.raises(
        ModelFileError, match="couple 'coulomb' wants at least one channel, of fixed and equi"
    ):
        _core.Evaluator(str(path))


def test_a_hardness_that_lets_charges_explode(coarse, tmp_path):
    path = with_couple(coarse[1], tmp_path / "x.pt", hardness=[6.0, -11.7])
    message = r"the hardness of O, -11\.7 eV/e², and the 11\.6059 eV/e² that its width of 0\.7 Å adds are not"
    with pytest.raises(ModelFileError, match=message):
        _core.Evaluator(str(path))


@pytest.mark.parametrize("cell", ["open", "triclinic"])
def test_a_matrix_that_is_not_positive_definite(coarse, tmp_path, cell):
    path = with_couple(coarse[1], tmp_path / "x.pt", hardness=[6.0, -9.0])
    message = r"not positive definite: the hardness of O, -9 eV/e², is too small for its width of 0\.7 Å wher"
    with pytest.raises(EvaluationError, match=message):
        _core.Evaluator(str(path)).evaluate(*case(cell, True, "", spacing=1.2))


def test_no_convergence(coarse, monkeypatch):
    monkeypatch.setenv("NEARSIGHT_RESIDUAL", "1e-19")
    message = r"has not converged: after \d+ steps the residual is .*, but 1e-19 was asked for: check"
    with pytest.raises(EvaluationError, match=message):
        _core.Evaluator(str(coarse[1])).evaluate(*case("triclinic", True, ""))


def test_electronegativities_that_are_no_numbers(coarse):
    """A field of which the squares overflow does it, too."""
    with pytest.raises(
        EvaluationError, match="an electronegativity is not a finite number: the structure is"
    ):
        _core.Evaluator(str(coarse[1])).evaluate(*case("open", True, ""), [1e200, 0.0, 0.0])


def test_c_interface(coarse):
    library = open_library()
    one = case("triclinic", True, "")
    model = load_model(library, coarse[1])
    assert library.ns_model_memory(model) == 8
    evaluator = make_evaluator(library, model)
    cell, pbc = np.ascontiguousarray(one.cell), [int(p) for p in one.pbc]
    system = system_of(one.positions, one.species, cell, pbc, np.array([one.charge]))
    steps = []
    for _ in range(2):
        results = results_for(charges=np.zeros(len(one.species)))
        assert library.ns_evaluate_system(evaluator, byref(system), byref(results)) == 0
        steps.append(results.equilibration_steps)
    assert steps[0] > 3 and steps[1] == 0
    assert results.electrostatic_seconds > results.pair_seconds > 0 < results.spreading_seconds
    library.ns_evaluator_free(evaluator)
    library.ns_model_free(model)


def test_defaults_of_the_configuration():
    config = LongRangeConfig(charges="equilibrated")
    assert config.couple(SPECIES) == {
        "kind": "coulomb",
        "charges": "equilibrated",
        "channels": 1,
        "hardness": [12.0, 12.0],
        "widths": [0.31, 0.66],
        "rtol": 1e-4,
        "residual": 1e-6,
    }
    assert config.learned == ["hardness", "widths"]
    assert config.readouts() == {"electronegativity": 1}
    given = LongRangeConfig(charges="equilibrated", hardness=HARDNESS, widths=0.5)
    assert given.learned == []
    assert given.couple(SPECIES)["hardness"] == [6.0, 9.0]
