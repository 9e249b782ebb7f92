"""Molecules that keep charges of their own: dense oracle, closed forms, derivatives, what is refused."""

from __future__ import annotations

import subprocess
from ctypes import byref
from pathlib import Path

import numpy as np
import pytest
import torch

import nearsight
from nearsight import Potential
from nearsight.errors import EvaluationError
from nearsight.lib import _core
from nearsight.units import COULOMB

from .c_api import load_model, make_evaluator, open_library, pointer, results_for, system_of
from .charge_models import CELLS, FIXED, SPECIES, Case, case, graph_of, random_model
from .charged_systems import OPEN, PERIODIC, SLAB
from .core_models import random_box
from .equilibrated_files import electronegativities, equilibrated, matrix, solve
from .test_charge_models import PLACES, assert_close, save
from .test_equilibration import check_derivatives, random_case, trajectory
from .test_field import FIELD

FOUR = np.array([2, 0, 1, 1, 2, 0, 0, 1, 2, 3, 0, 1], dtype=np.int32)  # of the atoms of `case`; one is alone
CHARGES = np.array([1.0, -0.5, 0.25, -2.0])
KEPT = {"molecules": FOUR, "molecule_charges": CHARGES}


class Kept:
    """An evaluator of which the molecules are always the same."""

    def __init__(self, path, **given):
        self.evaluator, self.given = _core.Evaluator(str(path)), given

    def evaluate(self, *one, **more):
        positions, species, cell, pbc, _, *rest = one
        return self.evaluator.evaluate(positions, species, cell, pbc, None, *rest, **self.given, **more)


def sums(charges, molecules=FOUR, count=4):
    return np.bincount(molecules, charges, count)


@pytest.fixture(scope="module")
def fine(tmp_path_factory):
    """A model and its file, solved to round-off on a fine mesh."""
    return equilibrated(tmp_path_factory.mktemp("fine"), rtol=1e-10, residual=1e-13)


@pytest.fixture(scope="module")
def coarse(tmp_path_factory):
    return equilibrated(tmp_path_factory.mktemp("coarse"))


@pytest.mark.parametrize("seed", range(30))
def test_dense_oracle(fine, seed):
    """Open, triclinic and orthorhombic periodic systems and slabs; one to five molecules, not in order."""
    model, path = fine
    one, rng = random_case(seed), np.random.default_rng(seed)
    n, count = len(one.species), 1 + seed % 5
    molecules = rng.permutation(np.arange(n, dtype=np.int32) % count)
    charges = rng.normal(size=count).round(2)
    chi, dense = electronegativities(model, one), matrix(one)
    expected = solve(dense, chi, charges, molecules)
    found = Kept(path, molecules=molecules, molecule_charges=charges).evaluate(*one)
    q = found["charges"][:, 0]
    np.testing.assert_allclose(q, expected, rtol=0, atol=1e-10 * np.abs(expected).max())
    np.testing.assert_allclose(sums(q, molecules, count), charges, rtol=0, atol=1e-12)
    energy = chi @ expected + 0.5 * expected @ dense @ expected
    assert found["electrostatic_energy"] == pytest.approx(energy, rel=1e-9)
    slopes = chi + dense @ q
    for molecule in range(count):  # electrons do not want to go elsewhere within a molecule
        assert np.ptp(slopes[molecules == molecule]) < 1e-9 * np.abs(slopes).max()


@pytest.mark.parametrize("cell", CELLS)
def test_one_molecule_is_the_total_charge(coarse, cell):
    """Also beside molecules without atoms, which may have any charge."""
    one = case(cell, True, "")
    expected = _core.Evaluator(str(coarse[1])).evaluate(*one)
    for number, charges in ((0, [one.charge]), (1, [5.0, one.charge, 3.0])):
        molecules = np.full(len(one.species), number, dtype=np.int32)
        found = Kept(coarse[1], molecules=molecules, molecule_charges=charges).evaluate(*one)
        assert found["energy"] == pytest.approx(expected["energy"], rel=1e-14)
        for name in ("charges", "forces", "virial", "potentials"):
            assert_close(found[name], expected[name], 1e-13)


def test_every_atom_alone(coarse):
    """Nothing flows: the charges are those given, and no equation is left."""
    one = case("triclinic", True, "")
    charges = np.random.default_rng(2).normal(size=12)
    found = Kept(coarse[1], molecules=np.arange(12), molecule_charges=charges).evaluate(*one)
    np.testing.assert_allclose(found["charges"][:, 0], charges, rtol=0, atol=1e-14)
    assert found["equilibration_steps"] == 0
    none = Kept(coarse[1], molecules=np.arange(12), molecule_charges=np.zeros(12)).evaluate(*one)
    assert np.abs(none["charges"]).max() < 1e-14 and abs(none["electrostatic_energy"]) < 1e-12


@pytest.fixture(scope="module", params=["bpnn", "mace with messages"])
def differentiable(request, tmp_path_factory):
    options = {"architecture": request.param, "rtol": 1e-9, "residual": 1e-12}
    return equilibrated(tmp_path_factory.mktemp("differentiable"), **options)[1]


@pytest.mark.parametrize("cell", CELLS)
def test_forces_and_virial_are_differences_of_the_energy(differentiable, cell):
    one = case(cell, True, "")
    check_derivatives(Kept(differentiable, **KEPT), one, np.zeros(3), list(zip(*PLACES)))


def test_derivatives_in_a_field(fine):
    check_derivatives(Kept(fine[1], **KEPT), case("open", True, ""), FIELD, list(zip(*PLACES)))


def two(distance: float) -> tuple[Case, np.ndarray]:
    """Two clusters that far apart, in an open system, and which atom belongs to which."""
    first, second = case("open", False, ""), case("open", True, "")
    away = distance * np.array([2.0, -1.0, 2.0]) / 3
    positions = np.concatenate([first.positions, second.positions[:7] + away])
    species = np.concatenate([first.species, second.species[:7]])
    molecules = np.repeat(np.array([0, 1], dtype=np.int32), [12, 7])
    return Case(positions, species, np.eye(3), OPEN, 0.0), molecules


@pytest.mark.parametrize("charges", [(0.0, 0.0), (1.0, -2.0)])
def test_far_apart(fine, charges):
    """The sum of the energies alone, and of the interaction of total charges and dipoles; with a total charge
    only, charge would flow between them."""
    distance = 1000.0
    one, molecules = two(distance)
    found = Kept(fine[1], molecules=molecules, molecule_charges=charges).evaluate(*one)
    energy, dipoles, centers = 0.0, [], []
    for number, charge in enumerate(charges):
        some = molecules == number
        positions = one.positions[some]
        alone = _core.Evaluator(str(fine[1])).evaluate(positions, one.species[some], *one[2:4], charge)
        energy += alone["energy"]
        centers.append(positions.mean(0))
        dipoles.append(alone["charges"][:, 0] @ (positions - centers[-1]))
        near = found["charges"][some, 0] - alone["charges"][:, 0]
        assert np.abs(near).max() < 1e-4
    away = centers[1] - centers[0]
    r = np.linalg.norm(away)
    between = charges[0] * charges[1] / r
    between += (charges[1] * dipoles[0] - charges[0] * dipoles[1]) @ away / r**3
    assert found["energy"] == pytest.approx(energy + COULOMB * between, abs=1e-6)
    flowing = _core.Evaluator(str(fine[1])).evaluate(*one._replace(charge=sum(charges)))
    assert abs(flowing["charges"][molecules == 0].sum() - charges[0]) > 0.01
    assert flowing["energy"] < found["energy"] - 0.01


@pytest.mark.parametrize("options", [{"backend": "torchscript"}, {"precision": "mixed"}, {"threads": 3}])
def test_backends_precisions_threads(coarse, options, monkeypatch):
    monkeypatch.setenv("NEARSIGHT_RESIDUAL", "1e-13")
    one = case("triclinic", True, "")
    expected = Kept(coarse[1], **KEPT).evaluate(*one)
    found = _core.Evaluator(str(coarse[1]), **{"precision": "double"} | options).evaluate(*one[:4], **KEPT)
    tolerance = 1e-5 if options.get("precision") == "mixed" else 1e-11
    for name in ("charges", "forces", "virial", "potentials"):
        assert_close(found[name], expected[name], tolerance)


@pytest.mark.parametrize("cell", ["triclinic", "open", "slab"])
def test_warm_starts(coarse, cell):
    """Fewer steps, the same charges to the residual, and exact sums at every step."""
    warm, steps = Kept(coarse[1], **KEPT), []
    for frame in trajectory(case(cell, True, ""), 20):
        found, cold = warm.evaluate(*frame), Kept(coarse[1], **KEPT).evaluate(*frame)
        steps.append((found["equilibration_steps"], cold["equilibration_steps"]))
        np.testing.assert_allclose(found["charges"], cold["charges"], rtol=0, atol=1e-5)
        np.testing.assert_allclose(sums(found["charges"][:, 0]), CHARGES, rtol=0, atol=1e-12)
    assert steps[0][0] == steps[0][1]
    last = np.mean(steps[8:], axis=0)
    assert last[0] < 0.7 * last[1]


def test_molecules_that_change(coarse):
    """What atoms remember comes from other molecules and charges: it costs steps, no accuracy."""
    warm, one = _core.Evaluator(str(coarse[1])), case("open", True, "")
    halves = {"molecules": np.repeat(np.array([0, 1], dtype=np.int32), 6)}
    given = [
        *({"charge": charge} for charge in (0.0, 1.0)),
        *(halves | {"molecule_charges": charges} for charges in ([1.0, 0.0], [0.0, 1.0], [50.0, -50.0])),
        KEPT,
        halves | {"molecule_charges": [1.0, 0.0]},
        {"charge": 0.0},
    ]
    for number, some in enumerate(given):
        frame = one._replace(positions=one.positions * (1 + 0.001 * number))
        found = warm.evaluate(*frame[:4], **some)
        cold = _core.Evaluator(str(coarse[1])).evaluate(*frame[:4], **some)
        np.testing.assert_allclose(found["charges"], cold["charges"], rtol=0, atol=2e-5)
        if "molecules" in some:
            numbers, charges = some["molecules"], some["molecule_charges"]
            found_sums = sums(found["charges"][:, 0], numbers, len(charges))
            np.testing.assert_allclose(found_sums, charges, rtol=0, atol=1e-12)


# ---- other charges than equilibrated ones ----


@pytest.fixture(scope="module")
def projected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("projected")
    models = {kind: random_model(kind, 1e-9) for kind in ("environment", "weighted", "latent")}
    return {kind: (model, save(folder / f"{kind}.pt", model)) for kind, model in models.items()}


@pytest.mark.parametrize("kind", ["environment", "weighted", "latent"])
def test_missing_charge_is_shared_within_a_molecule(projected, kind):
    """q_ci = p_ci + w_i (Q_cm - Σ_m p_c) / Σ_m w, in numpy."""
    model, path = projected[kind]
    one = case("triclinic", True, kind)
    graph = graph_of(one, model.cutoff)
    with torch.no_grad():
        readouts = model(graph.species, graph.edge_index, graph.edge_vectors, graph.num_atoms)
    raw = readouts["charge"].reshape(12, -1).numpy()
    v = readouts["charge_weight"].reshape(-1).numpy() if "charge_weight" in readouts else None
    w = np.ones(12) if v is None else np.log1p(np.exp(v))
    expected = raw.copy()
    for number, charge in enumerate(CHARGES):
        some = number == FOUR
        aims = np.array([charge, 0.0])[: raw.shape[1]]
        expected[some] += np.outer(w[some], aims - raw[some].sum(0)) / w[some].sum()
    found = Kept(path, **KEPT).evaluate(*one)
    np.testing.assert_allclose(found["charges"], expected, rtol=0, atol=1e-12)
    assert found["energies"].sum() == pytest.approx(found["energy"], rel=1e-14)


@pytest.mark.parametrize("cell", ["open", "triclinic", "slab"])
@pytest.mark.parametrize("kind", ["environment", "weighted", "latent"])
def test_derivatives_of_projected_charges(projected, kind, cell):
    one = case(cell, True, kind)
    check_derivatives(Kept(projected[kind][1], **KEPT), one, np.zeros(3), list(zip(*PLACES)))


def test_fixed_charges_must_add_up_in_every_molecule(tmp_path):
    path = save(tmp_path / "fixed.pt", random_model("fixed"))
    one = case("open", True, "fixed")
    charges = sums([FIXED[SPECIES[z]] for z in one.species])
    kept = Kept(path, molecules=FOUR, molecule_charges=charges)
    assert kept.evaluate(*one)["energy"] == pytest.approx(
        _core.Evaluator(str(path)).evaluate(*one)["energy"], rel=1e-14
    )
    more = Kept(path, molecules=FOUR + 1, molecule_charges=[7.0, *charges, 7.0])  # two without atoms
    assert more.evaluate(*one)["energy"] == kept.evaluate(*one)["energy"]
    charges[2] += 0.4
    message = rf"charges of molecule number 2 add up to {charges[2] - 0.4:g} e, but the charge that was given"
    with pytest.raises(EvaluationError, match=message):
        Kept(path, molecules=FOUR, molecule_charges=charges).evaluate(*one)


# ---- Python and C ----


def test_python(coarse):
    """Any numbers, in any order; charges in the ascending order of these, one for all, or none: 0."""
    potential, one = Potential(coarse[1]), case("triclinic", True, "")
    names = np.array([7, -3, 100, 101])[FOUR]  # of the molecules 0, 1, 2, 3
    symbols = [SPECIES[z] for z in one.species]
    arguments = (one.positions, symbols, one.cell, one.pbc)
    expected = Kept(coarse[1], **KEPT).evaluate(*one)
    found = potential.compute(*arguments, molecules=names, molecule_charges=CHARGES[[1, 0, 2, 3]])
    assert found.energy == expected["energy"]
    for given, charges in ((None, np.zeros(4)), (0.5, np.full(4, 0.5)), ([0.5], np.full(4, 0.5))):
        found = Potential(coarse[1]).compute(*arguments, molecules=FOUR.tolist(), molecule_charges=given)
        np.testing.assert_allclose(sums(found.charges[:, 0]), charges, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"molecule_charges": CHARGES}, "charges of molecules were given, but not which atoms belong"),
        ({"molecules": FOUR[:5]}, r"molecules have shape \(5,\) and type int32, expected a whole number"),
        ({"molecules": FOUR / 2}, r"molecules have shape \(12,\) and type float64, expected a whole number"),
        (KEPT | {"molecule_charges": [1.0, 2.0]}, "2 charges were given for 4 molecules: give one for each"),
        (KEPT | {"molecule_charges": [np.nan] * 4}, "the charges of molecules are .*, expected numbers, in"),
        (KEPT | {"charge": 1.0}, "a total charge and charges of molecules were both given: leave one of"),
    ],
)  # fmt: skip
def test_what_python_refuses(coarse, given, message):
    one = case("triclinic", True, "")
    with pytest.raises(EvaluationError, match=message):
        Potential(coarse[1]).compute_indices(*one[:4], **given)


def test_born_charges_are_refused(projected):
    with pytest.raises(EvaluationError, match="Born effective charges are not computed where molecules have"):
        Potential(projected["environment"][1]).compute_indices(
            *case("open", True, "environment")[:4], **KEPT, born_charges=True
        )


def test_models_without_electrostatics(bpnn):
    box = random_box(1)
    molecules = {"molecules": np.zeros(len(box[1]), dtype=np.int32), "molecule_charges": [0.0]}
    with pytest.raises(EvaluationError, match=r"the charge of a molecule was given, but '.*' has no elec"):
        _core.Evaluator(str(bpnn)).evaluate(*box, [True] * 3, **molecules)


@pytest.mark.parametrize("number", [-1, 4])
def test_numbers_out_of_range(coarse, number):
    molecules = FOUR.copy()
    molecules[5] = number
    message = rf"atom 5 \(counted from 0\) has molecule number {number}, expected 0 to 3 of the 4 molecules"
    with pytest.raises(EvaluationError, match=message):
        Kept(coarse[1], molecules=molecules, molecule_charges=CHARGES).evaluate(*case("slab", True, ""))


@pytest.mark.parametrize("pbc", [OPEN, PERIODIC, SLAB])
def test_c_interface(coarse, pbc):
    library, one = open_library(), case("triclinic", True, "")._replace(pbc=pbc)
    model = load_model(library, coarse[1])
    evaluator = make_evaluator(library, model)
    cell = np.ascontiguousarray(one.cell)
    system = system_of(one.positions, one.species, cell, [int(p) for p in pbc])
    system.molecules, system.num_molecules = pointer(FOUR), 4
    system.molecule_charges = pointer(CHARGES)
    charges = np.zeros(12)
    results = results_for(charges=charges)
    assert library.ns_evaluate_system(evaluator, byref(system), byref(results)) == 0
    expected = Kept(coarse[1], **KEPT).evaluate(*one)
    assert results.energy == expected["energy"]
    np.testing.assert_array_equal(charges, expected["charges"][:, 0])
    system.num_molecules = 0
    assert library.ns_evaluate_system(evaluator, byref(system), byref(results)) == 1
    message = b"molecules, num_molecules (at least 1) and molecule_charges must be given together"
    assert library.ns_last_error() == message
    system.num_molecules, system.molecules = 4, None
    assert library.ns_evaluate_system(evaluator, byref(system), byref(results)) == 1
    library.ns_evaluator_free(evaluator)
    library.ns_model_free(model)


def test_the_c_program(coarse, tmp_path):
    """Of which molecules are neutral."""
    one, program = (
        case("triclinic", True, ""),
        Path(nearsight.__file__).parent / "lib/nearsight-energy-forces",
    )
    lattice = " ".join(map(repr, one.cell.ravel().tolist()))
    rows = [
        f"{SPECIES[z]} {x!r} {y!r} {w!r} {number}"
        for z, (x, y, w), number in zip(one.species, one.positions.tolist(), FOUR)
    ]
    comment = f'Lattice="{lattice}" Properties=species:S:1:pos:R:3:molecules:I:1'
    (tmp_path / "x.xyz").write_text("\n".join(["12", comment, *rows, ""]))
    command = [program, coarse[1], tmp_path / "x.xyz", "double"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    expected = Kept(coarse[1], molecules=FOUR, molecule_charges=np.zeros(4)).evaluate(*one)
    energy, *forces = done.stdout.splitlines()
    assert float(energy) == pytest.approx(expected["energy"], rel=1e-14)
    np.testing.assert_allclose(np.loadtxt(forces), expected["forces"], rtol=0, atol=1e-12)
