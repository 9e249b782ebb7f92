"""ns_evaluate_device, whose positions and forces are on the GPU, against ns_evaluate_system on the CPU."""

from __future__ import annotations

import os
from ctypes import POINTER, byref, c_double, c_void_p, cast

import numpy as np
import pytest
import torch
from committees_for_tests import graph_of
from committees_for_tests import random_model as random_committee
from committees_for_tests import save as save_committee
from core.c_api import EXTRAPOLATIONS, load_model, make_evaluator, open_library, results_for, system_of
from core.charge_models import CELLS, MACE_CONFIGS, case, random_model
from core.core_models import random_box, save_bpnn
from core.equilibrated_files import equilibrated
from core.test_c_committee import features_of
from core.test_charge_models import save
from dispersion_for_tests import record_of

from nearsight.export import save_model
from nearsight.models import MACEConfig, NoLocalEnergy, build_model

CUDA, CURRENT_DEVICE = 1, -2
ON_GPU = bool(os.environ.get("NEARSIGHT_TEST_GPU"))


class DeviceArray:
    """Numbers in the GPU's memory; that of the emulated one is the host's."""

    def __init__(self, values: np.ndarray):
        if ON_GPU and not torch.cuda.is_available():
            pytest.skip("this torch has no CUDA, which the test takes memory from")
        self._tensor = torch.tensor(values, device="cuda" if ON_GPU else "cpu")

    @property
    def pointer(self):
        return cast(self._tensor.data_ptr(), POINTER(c_double))

    def read(self) -> np.ndarray:
        return self._tensor.cpu().numpy()


def other_stream() -> int:
    """The emulated device has one order of everything, whatever the stream."""
    return torch.cuda.Stream().cuda_stream if ON_GPU else 0x7EA


@pytest.fixture(scope="module")
def library():
    return open_library()


@pytest.fixture
def evaluator_of(library):
    """Returns evaluators of a file, freed at the end."""
    made = []

    def make(path, **options):
        model = load_model(library, path)
        made.append((make_evaluator(library, model, **options), model))
        return made[-1][0]

    yield make
    for evaluator, model in made:
        library.ns_evaluator_free(evaluator)
        library.ns_model_free(model)


def host_results(library, evaluator, system_arguments, **arrays):
    """Forces and energies begin as 1."""
    forces = np.ones((len(system_arguments[1]), 3))
    results = results_for(forces=forces, **arrays)
    assert library.ns_evaluate_system(evaluator, byref(system_of(*system_arguments)), byref(results)) == 0
    return results, forces


def device_results(library, evaluator, system_arguments, stream=None, with_forces=True, **arrays):
    positions = DeviceArray(system_arguments[0])
    forces = DeviceArray(np.ones((len(system_arguments[1]), 3)))
    system, results = system_of(*system_arguments), results_for(**arrays)
    results.energy, results.virial[:] = np.nan, [np.nan] * 6
    system.positions = positions.pointer
    if with_forces:
        results.forces = forces.pointer
    status = library.ns_evaluate_device(evaluator, byref(system), c_void_p(stream), byref(results))
    assert status == 0, library.ns_last_error()
    return results, forces.read()


def assert_same(found, expected, tolerance=1e-10):
    assert found[0].energy == pytest.approx(expected[0].energy, rel=tolerance)
    for a, b in ((found[0].virial[:], expected[0].virial[:]), (found[1], expected[1])):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1.0, np.abs(b).max()))


def charges(kind):
    def make(path):
        one = case("triclinic", False, kind)
        return save(path, random_model(kind)), (*one[:3], CELLS["triclinic"], np.array([one.charge]))

    return make


def equilibrating(path):
    return equilibrated(path.parent)[1], (
        *case("triclinic", True, "environment")[:3],
        CELLS["triclinic"],
        np.array([1.0]),
    )


def dispersed(path):
    species = ["H", "O"]
    energies = {"reference_energies": dict.fromkeys(species, 0.0), "reference_energies_source": "none"}
    save_model(path, NoLocalEnergy(species), **energies, provenance={}, dispersion=record_of(species))
    return path, random_box(3)


def messages(path):
    model = build_model(MACEConfig(cutoff=4.0, **MACE_CONFIGS["mace with messages"]), ["H", "O"])
    return save(path, model), random_box(3)


def local(**config):
    return lambda path: (save_bpnn(path, **config), random_box(3))


MODELS = {
    "sum": local(),
    "committee": local(members=3),
    "eigenstate": local(states=3, state=1),
    "messages": messages,
    "dispersion": dispersed,
    "fixed charges": charges("fixed"),
    "charges of the environment": charges("environment"),
    "latent charges": charges("latent"),
    "equilibrated charges": equilibrating,
}


@pytest.mark.parametrize("stream", [None, other_stream], ids=["default stream", "other stream"])
@pytest.mark.parametrize("name", MODELS)
def test_equals_the_cpu(library, evaluator_of, thread_order, tmp_path, name, stream):
    path, system = MODELS[name](tmp_path / "model.pt")
    expected = host_results(library, evaluator_of(path), system)
    device = evaluator_of(path, device=CUDA, device_index=CURRENT_DEVICE, skin=0.5)
    for _ in range(2):  # the second time with the list of the first
        assert_same(device_results(library, device, system, stream and stream()), expected)


def test_mixed_precision(library, evaluator_of, tmp_path):
    path = save_bpnn(tmp_path / "model.pt")
    expected = host_results(library, evaluator_of(path), random_box(3))
    device = evaluator_of(path, device=CUDA, device_index=-1, precision=0)
    assert_same(device_results(library, device, random_box(3)), expected, 1e-5)


def test_other_results_are_on_the_host(library, evaluator_of, tmp_path):
    path = save_bpnn(tmp_path / "model.pt", members=3)
    system = random_box(3)
    n, names = len(system[1]), ("energies", "virials", "member_energies", "member_forces")
    shapes = ((n,), (n, 6), (3,), (3, n, 3))
    arrays = [{name: np.ones(shape) for name, shape in zip(names, shapes)} for _ in range(2)]
    host_results(library, evaluator_of(path), system, **arrays[0])
    device_results(library, evaluator_of(path, device=CUDA, device_index=-1), system, **arrays[1])
    for name in names:
        np.testing.assert_allclose(arrays[1][name], arrays[0][name], rtol=1e-10, atol=1e-10, err_msg=name)


def test_extrapolations(library, evaluator_of, tmp_path):
    """Arrays are added to and widened, here as on the CPU."""
    positions, species, cell = random_box(3)
    path = tmp_path / "model.pt"
    save_committee(path, random_committee(1, [graph_of(positions, species, cell)], members=2))
    model = load_model(library, path)
    features = features_of(library, model)
    library.ns_model_free(model)
    found = []
    for evaluate, options in ((host_results, {}), (device_results, {"device": CUDA, "device_index": -1})):
        arrays = {
            "extrapolations": np.ones(len(features), dtype=np.longlong),
            "lowest_features": np.array([f.minimum for f in features]),
            "highest_features": np.array([f.maximum for f in features]),
        }
        evaluator = evaluator_of(path, **options)
        for scale in (0.9, 1.1):
            evaluate(library, evaluator, (scale * positions, species, scale * cell), **arrays)
        found.append([arrays[name] for name in EXTRAPOLATIONS])
    assert (found[0][0] == found[1][0]).all()
    assert found[0][0].max() > 2
    for a, b in zip(found[1][1:], found[0][1:]):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13)


def test_steps_with_a_list_that_is_kept(library, evaluator_of, tmp_path):
    path = save_bpnn(tmp_path / "model.pt")
    positions, species, cell = random_box(3)
    rng = np.random.default_rng(1)
    cpu = evaluator_of(path)
    device = evaluator_of(path, device=CUDA, device_index=-1, skin=0.6)
    for _ in range(8):
        positions = positions + 0.05 * rng.normal(size=positions.shape)
        system = (positions, species, cell)
        assert_same(device_results(library, device, system), host_results(library, cpu, system))


def test_atoms_outside_the_model_and_no_forces(library, evaluator_of, tmp_path):
    path = save_bpnn(tmp_path / "model.pt")
    positions, species, cell = random_box(3)
    species[::3] = -1
    system = (positions, species, cell)
    expected = host_results(library, evaluator_of(path), system)
    device = evaluator_of(path, device=CUDA, device_index=-1)
    found = device_results(library, device, system)
    assert_same(found, expected)
    assert (found[1][::3] == 1.0).all()
    energy, untouched = device_results(library, device, system, with_forces=False)
    assert energy.energy == found[0].energy
    assert (untouched == 1.0).all()


def test_charges_without_forces(library, evaluator_of, tmp_path):
    path, system = MODELS["fixed charges"](tmp_path / "model.pt")
    device = evaluator_of(path, device=CUDA, device_index=-1)
    found = device_results(library, device, system)[0].energy
    assert device_results(library, device, system, with_forces=False)[0].energy == found


def error_of(library, evaluator, system_arguments) -> str:
    system = system_of(*system_arguments)
    positions = DeviceArray(system_arguments[0])
    system.positions = positions.pointer
    results = results_for()
    assert library.ns_evaluate_device(evaluator, byref(system), None, byref(results)) != 0
    return library.ns_last_error().decode()


def test_an_evaluator_on_the_cpu_refuses(library, evaluator_of, tmp_path):
    evaluator = evaluator_of(save_bpnn(tmp_path / "model.pt"))
    assert error_of(library, evaluator, random_box(3)) == (
        "a system in the memory of a GPU was given, but this evaluator was made for device cpu: make it for "
        "device cuda, or give a system in the host's memory"
    )


def test_bad_positions_are_named(library, evaluator_of, tmp_path):
    evaluator = evaluator_of(save_bpnn(tmp_path / "model.pt"), device=CUDA, device_index=-1, skin=0.5)
    positions, species, cell = random_box(3)
    positions[5] = positions[4]
    assert "atom 4 (counted from 0)" in error_of(library, evaluator, (positions, species, cell))
    positions[5] = np.nan
    assert "atom 5 is at" in error_of(library, evaluator, (positions, species, cell))


def test_missing_pointers(library, evaluator_of, tmp_path):
    evaluator = evaluator_of(save_bpnn(tmp_path / "model.pt"), device=CUDA, device_index=-1)
    system = system_of(*random_box(3))
    results = results_for()
    assert library.ns_evaluate_device(None, byref(system), None, byref(results)) == 1
    assert library.ns_last_error() == b"ns_evaluate_device: evaluator must not be NULL"
    system.positions = None
    assert library.ns_evaluate_device(evaluator, byref(system), None, byref(results)) == 1
    assert library.ns_last_error() == b"ns_system: positions and species must not be NULL"
