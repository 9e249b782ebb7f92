"""Models with charges: derivatives, both backends against the torch module, gradients by parameters."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nearsight.couple import ChargedStructure, FrameCharger, evaluate, join_charged
from nearsight.export import save_model
from nearsight.lib import _core
from nearsight.models import training_module
from nearsight.neighbors import collate

from .charge_models import (
    ARCHITECTURES,
    CELLS,
    KINDS,
    REFERENCE_ENERGIES,
    Case,
    case,
    charged_of,
    graph_of,
    random_model,
)

PLACES = [(0, 1, 2, 0, 0, 1), (0, 1, 2, 1, 2, 2)]  # of the six components of a virial


def save(path, model):
    source = {"reference_energies": REFERENCE_ENERGIES, "reference_energies_source": "given"}
    save_model(path, model, **source, provenance={})
    return path


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module", params=ARCHITECTURES)
def architecture(request):
    return request.param


@pytest.fixture(scope="module")
def fine(kind, architecture, tmp_path_factory):
    """A model whose lattice sums are so accurate that what depends on the choice of the mesh is not seen."""
    model = random_model(kind, 1e-9, architecture)
    return model, save(tmp_path_factory.mktemp("charges") / "model.pt", model)


def assert_close(found, expected, tolerance):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("charged", [False, True], ids=["neutral", "charged"])
@pytest.mark.parametrize("cell", CELLS)
def test_forces_and_virial_are_differences_of_the_energy(fine, kind, cell, charged):
    evaluator = _core.Evaluator(str(fine[1]), precision="double")
    one = case(cell, charged, kind)
    expected = evaluator.evaluate(*one)

    def slope(changed, step=2e-4):
        energies = [evaluator.evaluate(*changed(k * step))["energy"] for k in (-2, -1, 1, 2)]
        return (energies[0] - 8 * energies[1] + 8 * energies[2] - energies[3]) / (12 * step)

    def moved(atom, axis):
        def changed(h):
            positions = one.positions.copy()
            positions[atom, axis] += h
            return one._replace(positions=positions)

        return changed

    def strained(a, b):
        unit = np.zeros((3, 3))
        unit[a, b] += 0.5
        unit[b, a] += 0.5

        def changed(h):
            deformation = np.eye(3) + h * unit
            return one._replace(positions=one.positions @ deformation, cell=one.cell @ deformation)

        return changed

    some = [(0, 0), (3, 1), (7, 2), (11, 0)]
    forces = [-slope(moved(*place)) for place in some]
    assert_close([expected["forces"][place] for place in some], forces, 1e-7)
    virial = [-slope(strained(a, b)) for a, b in zip(*PLACES)]
    assert_close([expected["virial"][a, b] for a, b in zip(*PLACES)], virial, 1e-7)


@pytest.mark.parametrize("backend", ["native", "torchscript"])
@pytest.mark.parametrize("cell", CELLS)
def test_both_backends_give_what_the_module_gives(coarse, kind, cell, backend, monkeypatch):
    monkeypatch.setenv("NEARSIGHT_RADIALS", "analytic")  # those of MACE; tables are right to 1e-9
    model, path = coarse
    one = case(cell, True, kind)
    found = _core.Evaluator(str(path), backend=backend, precision="double").evaluate(*one)
    expected = evaluate(model, graph_of(one), model.couple, charged=charged_of(model, one))
    reference = sum(REFERENCE_ENERGIES["HO"[z]] for z in one.species)
    assert found["energy"] - reference == pytest.approx(expected.energy.item(), rel=1e-11)
    assert found["energies"].sum() == pytest.approx(found["energy"], rel=1e-14)
    local = expected.readouts["energy"].sum().item()
    assert found["electrostatic_energy"] == pytest.approx(expected.energy.item() - local, rel=1e-10)
    assert_close(found["charges"], expected.charges.numpy(), 1e-12)
    assert_close(found["forces"], expected.forces.numpy(), 1e-10)
    assert_close(found["virial"], expected.virial[0].numpy(), 1e-10)


@pytest.fixture(scope="module")
def coarse(kind, architecture, tmp_path_factory):
    model = random_model(kind, architecture=architecture)
    return model, save(tmp_path_factory.mktemp("charges") / "coarse.pt", model)


def test_charges_and_potentials(coarse, kind):
    """The first channel has the total charge, others none; E_el = ½ Σ q φ."""
    one = case("triclinic", True, kind)
    found = _core.Evaluator(str(coarse[1]), precision="double").evaluate(*one)
    sums = [one.charge] + [0.0] * (found["charges"].shape[1] - 1)
    assert found["charges"].sum(0) == pytest.approx(sums, abs=1e-12)
    half = 0.5 * (found["charges"] * found["potentials"]).sum()
    assert found["electrostatic_energy"] == pytest.approx(half, rel=1e-13)


def test_mixed_precision_and_threads(coarse, kind):
    one = case("triclinic", True, kind)
    expected = _core.Evaluator(str(coarse[1]), precision="double").evaluate(*one)
    for options in ({"precision": "mixed"}, {"precision": "double", "threads": 3}):
        found = _core.Evaluator(str(coarse[1]), **options).evaluate(*one)
        assert_close(found["forces"], expected["forces"], 1e-4)
        assert_close(found["charges"], expected["charges"], 1e-5)


def test_more_tiles_than_are_remembered(tmp_path):
    """A large supercell has the forces and charges of its cell, with any number of threads."""
    path, one = str(save(tmp_path / "model.pt", random_model("environment"))), case("triclinic", False, "")
    copies = np.stack(np.meshgrid(*[range(12)] * 3, indexing="ij"), -1).reshape(-1, 3)
    large = one._replace(
        positions=(one.positions + (copies @ one.cell)[:, None]).reshape(-1, 3),
        species=np.tile(one.species, len(copies)),
        cell=12 * one.cell,
    )
    expected = _core.Evaluator(path, precision="double").evaluate(*one)
    found, threaded = (
        _core.Evaluator(path, precision="double", threads=threads).evaluate(*large) for threads in (1, 3)
    )
    for key in ("forces", "charges"):
        assert_close(found[key], np.tile(expected[key], (len(copies), 1)), 1e-3)
        assert_close(threaded[key], found[key], 1e-12)


def batch_of(kind, model):
    """Frames of all kinds and total charges, as training sees them."""
    cases = [case(cell, charged, kind) for cell, charged in zip(CELLS, (True, False, True, False))]
    charger = FrameCharger(model.couple)
    charged = join_charged([charger(ChargedStructure(*one)) for one in cases])
    return collate([graph_of(one) for one in cases]), charged


def loss_gradient(module, model, kind):
    graph, charged = batch_of(kind, model)
    found = evaluate(module, graph, model.couple, create_graph=True, charged=charged)
    generator = torch.Generator().manual_seed(2)
    loss = torch.zeros((), dtype=torch.float64)
    for values in (found.energy, found.forces, found.virial, found.charges):
        aim = torch.randn(values.shape, generator=generator, dtype=torch.float64)
        loss = loss + ((values - aim) ** 2).sum()
    return loss, torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True)


def test_gradients_of_a_loss_by_the_parameters(kind, architecture):
    model = random_model(kind, architecture=architecture)
    native_loss, native = loss_gradient(training_module(model, "native", 1, "double"), model, kind)
    loss, exact = loss_gradient(model, model, kind)
    assert native_loss.item() == pytest.approx(loss.item(), rel=1e-12)
    for a, b in zip(native, exact):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-8 * max(1.0, b.abs().max().item()))


def test_gradients_are_differences_of_the_loss(kind, architecture):
    model = random_model(kind, architecture=architecture)
    _, gradients = loss_gradient(model, model, kind)
    generator = torch.Generator().manual_seed(3)
    directions = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in model.parameters()]
    expected = sum((g * d).sum().item() for g, d in zip(gradients, directions))
    step, losses = 1e-5, {}
    for k in (-2, -1, 1, 2):
        moved = random_model(kind, architecture=architecture)
        with torch.no_grad():
            for parameter, direction in zip(moved.parameters(), directions):
                parameter.add_(k * step * direction)
        losses[k] = loss_gradient(moved, moved, kind)[0].item()
    slope = (losses[-2] - 8 * losses[-1] + 8 * losses[1] - losses[2]) / (12 * step)
    assert slope == pytest.approx(expected, rel=1e-7)


def test_soft_inputs_are_trained_alike(kind):
    """Descriptors with trained channels need second derivatives by their features, too."""
    from nearsight.models import SOAPConfig

    soap = SOAPConfig(n_max=3, l_max=2, species_channels=2)
    model = random_model(kind, descriptor=soap)
    _, native = loss_gradient(training_module(model, "native", 1), model, kind)
    _, exact = loss_gradient(model, model, kind)
    for a, b in zip(native, exact):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-8 * max(1.0, b.abs().max().item()))


def test_a_batch_is_its_frames(kind, architecture):
    model = random_model(kind, architecture=architecture)
    graph, charged = batch_of(kind, model)
    together = evaluate(model, graph, model.couple, charged=charged)
    charger, start = FrameCharger(model.couple), 0
    for number, (cell, net) in enumerate(zip(CELLS, (True, False, True, False))):
        one = case(cell, net, kind)
        found = evaluate(model, graph_of(one), model.couple, charged=charger(ChargedStructure(*one)))
        atoms = slice(start, start + len(one.species))
        start = atoms.stop
        assert together.energy[number].item() == pytest.approx(found.energy.item(), rel=1e-12)
        assert_close(together.forces[atoms].numpy(), found.forces.numpy(), 1e-11)
        assert_close(together.virial[number].numpy(), found.virial[0].numpy(), 1e-11)


def test_frames_of_similar_cells_share_a_mesh():
    charger = FrameCharger(random_model("environment").couple)
    one = case("triclinic", False, "environment")
    larger, other = one._replace(cell=1.05 * one.cell), one._replace(cell=1.2 * one.cell)
    meshes = [charger(ChargedStructure(*some)).frames.mesh[0].tolist() for some in (one, larger, other, one)]
    assert meshes[0] == meshes[1] == meshes[3]
    assert len(next(iter(charger.meshes.values()))) == 2


def test_the_mesh_is_chosen_again_in_another_cell(tmp_path, capfd):
    """Once a warning; for another number of atoms none, since that is another system."""
    model = random_model("environment")
    evaluator = _core.Evaluator(str(save(tmp_path / "model.pt", model)), precision="double")
    one = case("orthorhombic", False, "environment")
    first = evaluator.evaluate(*one)
    evaluator.evaluate(*(values[:-1] if k < 2 else values for k, values in enumerate(one)))
    assert capfd.readouterr().err == ""
    assert evaluator.evaluate(*one)["energy"] == first["energy"]
    for scale in (1.2, 1.5):
        large = one._replace(positions=scale * one.positions, cell=scale * one.cell)
        found = evaluator.evaluate(*large)
        fresh = _core.Evaluator(str(tmp_path / "model.pt"), precision="double").evaluate(*large)
        assert found["energy"] == fresh["energy"]
    warnings = capfd.readouterr().err
    assert warnings.count("the cell has changed by more than a tenth since the mesh of the electrostat") == 1


def test_symmetric_molecules_may_have_no_charges_at_first(tmp_path):
    """Two equal atoms without a net charge have none; a mesh that was set up for them is set up again."""
    evaluator = _core.Evaluator(
        str(save(tmp_path / "model.pt", random_model("environment"))), precision="double"
    )
    box, species = 8.0 * np.eye(3), np.zeros(4, dtype=np.int32)
    pairs = np.array([[0.0, 0, 0], [1, 0, 0], [4, 4, 4], [4, 5, 4]])
    quiet = evaluator.evaluate(pairs, species, box, [True] * 3, 0.0)
    assert np.abs(quiet["charges"]).max() < 1e-14
    pairs[3, 1] = 5.4
    found = evaluator.evaluate(pairs, species, box, [True] * 3, 0.0)
    fresh = _core.Evaluator(str(tmp_path / "model.pt"), precision="double")
    expected = fresh.evaluate(pairs, species, box, [True] * 3, 0.0)
    assert found["energy"] == pytest.approx(expected["energy"], rel=1e-6)


def test_no_atoms(tmp_path):
    path = save(tmp_path / "model.pt", random_model("weighted"))
    nothing = Case(np.zeros((0, 3)), np.zeros(0, dtype=np.int32), np.eye(3), [False] * 3, 0.0)
    assert _core.Evaluator(str(path)).evaluate(*nothing)["energy"] == 0.0
