"""Importing ANI models: small ones written by the tests against plain loops, ANI-2x against torchani."""

import ase.io
import numpy as np
import pytest
import torch
from ani_oracle import SPECIES, Model
from reference_data import reference_data
from torch import nn
from typer.testing import CliRunner

from nearsight.cli.app import app
from nearsight.couple import evaluate
from nearsight.errors import ConfigError
from nearsight.importers import from_torchani
from nearsight.importers.imported import self_check
from nearsight.importers.neurochem import import_ani, read_network
from nearsight.interfaces.potential import Potential
from nearsight.neighbors import make_graph
from nearsight.units import HARTREE

SYMBOLS = ["O", "H", "H", "C", "O", "H", "H"]


def molecule(seed=0):
    rng = np.random.default_rng(seed)
    positions = np.zeros((0, 3))
    while len(positions) < len(SYMBOLS):
        candidate = rng.random(3) * 3.2
        if (np.linalg.norm(positions - candidate, axis=1) > 0.9).all():
            positions = np.vstack([positions, candidate])
    return positions


def saved(imported, path):
    imported.save(path)
    return Potential(path)


@pytest.mark.parametrize("packed", [True, False])
def test_energies_are_those_of_plain_loops(tmp_path, packed):
    oracle = Model(members=3)
    imported = import_ani(oracle.write(tmp_path / "zoo", packed))
    expected = oracle.energies(molecule(), SYMBOLS)
    found = saved(imported, tmp_path / "model.pt").compute(molecule(), SYMBOLS)
    assert found.energy / HARTREE == pytest.approx(expected.mean(), rel=1e-11)
    assert self_check(tmp_path / "model.pt").forces < 1e-11
    assert imported.model.couple == {"kind": "sum", "members": 3}
    kinds = [SPECIES.index(symbol) for symbol in SYMBOLS]
    graph = make_graph(molecule(), kinds, np.zeros((3, 3)), [False] * 3, imported.model.cutoff)
    readouts = evaluate(imported.model, graph, imported.model.couple).readouts["energy"].detach().sum(0)
    references = sum(imported.reference_energies[symbol] for symbol in SYMBOLS)
    assert (readouts.numpy() + references) / HARTREE == pytest.approx(expected, rel=1e-11)


def test_forces_are_differences_of_the_loops(tmp_path):
    oracle = Model(members=1)
    forces = saved(import_ani(oracle.write(tmp_path)), tmp_path / "m.pt").compute(molecule(), SYMBOLS).forces
    step = 1e-4
    for atom, axis in ((0, 0), (3, 2), (6, 1)):
        energies = []
        for sign in (1, -1):
            moved = molecule()
            moved[atom, axis] += sign * step
            energies.append(oracle.energies(moved, SYMBOLS)[0])
        difference = HARTREE * (energies[1] - energies[0]) / (2 * step)
        assert forces[atom, axis] == pytest.approx(difference, rel=1e-6, abs=1e-6)


def test_a_committee_is_the_mean_of_its_members(tmp_path):
    folder = Model(members=3, seed=1).write(tmp_path)
    every, last, first = (
        saved(import_ani(folder, members), tmp_path / f"{name}.pt").compute(molecule(), SYMBOLS)
        for name, members in (("both", [2, 0]), ("last", [2]), ("first", [0]))
    )
    assert every.energy == pytest.approx((last.energy + first.energy) / 2, rel=1e-13)
    assert every.forces == pytest.approx((last.forces + first.forces) / 2, rel=1e-11, abs=1e-12)


def test_other_constants_are_rounded_to_single_precision(tmp_path):
    folder = Model().write(tmp_path)
    text = (folder / "small.params").read_text()
    (folder / "small.params").write_text(text.replace("Rcr = 4.5000e+00", "Rcr = 5.1\nDESC = ANI_NORMAL"))
    (folder / "sae.dat").write_text("H,0=-0.1\nC,1=-37\nO,2=-75\n")
    imported = import_ani(folder / "small.info")
    assert imported.model.cutoff == 5.1
    assert imported.reference_energies["H"] == HARTREE * float(np.float32(-0.1))


# ---- on the command line


def write_reference(path, oracle):
    positions = molecule(3)
    energy = oracle.energies(positions, SYMBOLS).mean()
    atoms = ase.Atoms(SYMBOLS, positions, info={"ani": energy})
    atoms.arrays["f"] = np.zeros((len(atoms), 3))
    ase.io.write(path, atoms)
    return path


def test_the_command_prints_the_largest_deviations(tmp_path):
    oracle = Model()
    reference = write_reference(tmp_path / "reference.xyz", oracle)
    options = ["--reference", str(reference), "--key", "energy=ani", "--key", "forces=f"]
    done = CliRunner().invoke(
        app, ["import", "ani", str(oracle.write(tmp_path)), "-o", str(tmp_path / "m.pt"), *options]
    )
    assert done.exit_code == 0, done.output
    output = " ".join(done.output.split())
    assert "m.pt written. Largest deviation of the native core from the scripted module: energy" in output
    deviation = float(output.split("(1 frames): energy")[1].split()[0])
    assert deviation < 1e-6  # eV; the file has eight digits of positions
    forces = Potential(tmp_path / "m.pt").compute(molecule(3), SYMBOLS).forces
    assert f"forces {np.abs(forces).max():.1e} eV/Å" in output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--members", "0,x"], "--members is '0,x', expected numbers such as 0,1"),
        (["--reference-unit", "kcal"], "--reference-unit is 'kcal', expected hartree or eV"),
        (["--members", "1,2"], r"has 2 members; expected different numbers from 0 to 1, found \[1, 2\]"),
        (["--members", "1,1"], r"found \[1, 1\]"),
    ],
)
def test_wrong_options(tmp_path, options, message):
    folder = Model().write(tmp_path)
    done = CliRunner().invoke(app, ["import", "ani", str(folder), "-o", str(tmp_path / "m.pt"), *options])
    with pytest.raises(ConfigError, match=message):
        raise done.exception
    assert not (tmp_path / "m.pt").exists()


# ---- files that cannot be read


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "small.info",
            "train\n",
            "",
            "must have four lines: constants, self energies, start of the members'",
        ),
        ("small.info", "2\n", "two\n", "must have four lines"),
        ("small.params", "TM = 1", "TM = 2", "TM = 2 is not known; expected the constants Rcr, Rca"),
        ("small.params", "TM = 1", "Rcs = 1", "Rcs = 1 is not known"),
        ("small.params", "Zeta = [5.5000000e+00]\n", "", "lacks Zeta"),
        ("small.params", "5.5000000e+00", "many", r"Zeta must be numbers, found \[many\]"),
        ("small.params", "5.5000000e+00", "1.0,2.0", r"Zeta must be one number, found \[1.0,2.0\]"),
        ("small.params", "Rcr = 4.5000e+00", "Rcr = 4.5 Å", "is not a text file"),
        ("sae.dat", "C,1=-37.75\n", "", "has no self energy of C; expected lines as H,0=-0.5978"),
        ("sae.dat", "-37.75", "-37.7.5", "a self energy is not a number"),
        ("train1/networks/ANN-C.nnf", "activation=9", "activation=5", r"layer 1: activation 5 is not known"),
        ("train1/networks/ANN-C.nnf", "nodes=4", "nodes=four", "nodes must be a whole number, found four"),
        ("train1/networks/ANN-C.nnf", "blocksize=45;", "", "blocksize must be a whole number, found nothing"),
        ("train1/networks/ANN-C.nnf", "btchnorm=0", "btchnorm=1", "layer 1: btchnorm is 1, expected 0"),
        ("train1/networks/ANN-C.nnf", "type=0", "type=2", "layer 1: type is 2, expected 0"),
        ("train1/networks/ANN-C.nnf", "l1.wparam[315]", "l1.wparam[314]", "expected 315 weights, found 314"),
        ("train1/networks/ANN-C.nnf", "FILE:ANN-C.nnf-l1.b", "FILE:../ANN", r"must have the form FILE:name"),
        (
            "train1/networks/ANN-C.nnf",
            "l2.bparam",
            "l9.bparam",
            "l9.bparam does not exist; .* names it as its",
        ),
        ("train1/networks/ANN-C.nnf", "layer", "Layer", "has no layers: it is damaged, or not a network"),
    ],
)
def test_wrong_files_are_named(tmp_path, file, old, new, message):
    folder = Model().write(tmp_path, packed=False)
    edit(folder / file, old, new)
    with pytest.raises(ConfigError, match=message):
        import_ani(folder)


def test_missing_and_damaged_files_are_named(tmp_path):
    folder = Model(members=1).write(tmp_path)
    network = folder / "train0" / "networks" / "ANN-O.nnf"
    packed = network.read_bytes()
    weights = network.with_name("ANN-O.nnf-l1.wparam")
    numbers = weights.read_bytes()
    for content, message in (
        (numbers[:-4], r"expected 225 weights, found 225 in the text and 224 in ANN-O.nnf-l1.wparam"),
        (
            b"\xff" * len(numbers),
            r"ANN-O.nnf-l1.wparam has weights that are not finite numbers: copy it again",
        ),
    ):
        weights.write_bytes(content)
        with pytest.raises(ConfigError, match=message):
            read_network(network)
    network.write_bytes(packed[:-30])
    with pytest.raises(ConfigError, match=r"ANN-O.nnf is damaged \(.*\): copy it again"):
        import_ani(folder)
    network.unlink()
    with pytest.raises(ConfigError, match="every element of the ANI model needs its network"):
        import_ani(folder)
    (folder / "small.params").unlink()
    with pytest.raises(ConfigError, match=r"small.params does not exist; it is part of the ANI model"):
        import_ani(folder)
    with pytest.raises(ConfigError, match=r"has 0 files \*.info, expected one that describes the model"):
        import_ani(folder / "train0")


def test_networks_must_fit(tmp_path):
    folder = Model(widths={"H": [6], "C": [6], "O": [6]}).write(tmp_path / "a", packed=False)
    other = Model(widths={"H": [6], "C": [6], "O": [5]}).write(tmp_path / "b", packed=False)
    (folder / "train1").rename(folder / "train9")
    (other / "train1").rename(folder / "train1")
    with pytest.raises(ConfigError, match="the networks of O are not of the same shape in all members"):
        import_ani(folder)
    edit(folder / "small.params", "[7.5000000e-01,1.5000000e+00,2.7500000e+00]", "[0.75,1.5]")
    with pytest.raises(
        ConfigError,
        match=r"the network of H has layers with \[45, 6\] inputs and \[6, 1\] outputs; expected \[42, 6\]",
    ):
        import_ani(folder, [0])


# ---- ANI-2x: two members of the published model, and torchani's results for them


@pytest.fixture(scope="module")
def ani_2x(tmp_path_factory):
    folder = reference_data("ani2x")
    path = tmp_path_factory.mktemp("ani2x") / "ani2x.pt"
    import_ani(folder).save(path)
    return path, ase.io.read(folder / "reference.extxyz", ":")


def computed(potential, atoms, **options):
    symbols = atoms.get_chemical_symbols()
    return potential.compute(atoms.positions, symbols, atoms.cell.array, atoms.pbc, **options)


@pytest.mark.parametrize("backend", ["native", "torchscript"])
def test_ani_2x_equals_torchani(ani_2x, backend):
    path, frames = ani_2x
    potential = Potential(path, backend=backend)
    for atoms in frames:
        found = computed(potential, atoms, members=True)
        assert found.energy / HARTREE == pytest.approx(atoms.info["energy_hartree"], abs=1e-8)
        members = atoms.info["member_energies_hartree"]
        assert found.member_energies / HARTREE == pytest.approx(members, abs=1e-8)
        forces = atoms.arrays["forces_hartree_per_angstrom"]
        np.testing.assert_allclose(found.forces / HARTREE, forces, rtol=0, atol=1e-7)


def test_ani_2x_in_mixed_precision(ani_2x):
    path, frames = ani_2x
    potential = Potential(path, precision="mixed")
    for atoms in frames:
        forces = atoms.arrays["forces_hartree_per_angstrom"]
        found = computed(potential, atoms).forces
        np.testing.assert_allclose(found / HARTREE, forces, rtol=0, atol=2e-6)


# ---- models of torchani


def test_only_models_of_torchani_are_taken():
    with pytest.raises(
        ConfigError, match=r"expected a model of torchani 2.7 or newer .* found builtins.dict"
    ):
        from_torchani({})


@pytest.fixture
def simple_ani(monkeypatch):
    """torchani's function for untrained models of today's form."""
    monkeypatch.setenv("TORCHANI_NO_WARN_EXTENSIONS", "1")
    torchani = pytest.importorskip("torchani", reason="torchani is not installed")

    def build(**changes):
        torch.manual_seed(0)
        options = {"lot": "wb97x-631gd", "ensemble_size": 2, "repulsion": False, "cutoff_fn": "cosine"}
        return torchani.arch.simple_ani(SPECIES, **options | changes).double()

    return build


def energy_and_forces(model, positions, symbols):
    numbers = torch.tensor([[{"H": 1, "C": 6, "O": 8}[symbol] for symbol in symbols]])
    coordinates = torch.tensor(positions[None], requires_grad=True)
    energy = model((numbers, coordinates)).energies.sum()
    return energy.item(), -torch.autograd.grad(energy, coordinates)[0][0].numpy()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ensemble_size": 1, "bias": True},
        {"cutoff_fn": "smooth", "activation": "gelu", "angular_zeta": 32.0},
        {"ensemble_size": 3, "active": [0, 2]},
        {"activation": "celu"},
    ],
)
def test_torchani_models(simple_ani, tmp_path, changes):
    changes = dict(changes)
    active = changes.pop("active", None)
    model = simple_ani(**changes)
    if active:
        model.set_active_members(active)
    energy, forces = energy_and_forces(model, molecule(), SYMBOLS)
    found = saved(from_torchani(model), tmp_path / "model.pt").compute(molecule(), SYMBOLS)
    assert found.energy / HARTREE == pytest.approx(energy, rel=1e-12)
    assert found.forces / HARTREE == pytest.approx(forces, abs=1e-8)  # the slope of TightCELU is in single


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"repulsion": True}, r"type ANI with repulsion_xtb \(RepulsionXTB\) cannot be imported"),
        ({"dispersion": True}, r"with dispersion_d3 \(TwoBodyDispersionD3\) cannot be imported"),
        ({"activation": nn.ReLU()}, "has the activation in the network of H ReLU, which is not known"),
        (
            {"cutoff_fn": "dummy"},
            "has the cutoff function CutoffDummy, which is not known; expected CutoffCosine",
        ),
    ],
)
def test_parts_of_torchani_that_are_not_known(simple_ani, changes, message):
    with pytest.raises(ConfigError, match=message):
        from_torchani(simple_ani(**changes))


def test_parts_of_torchani_that_are_not_known_either(simple_ani):
    import torchani

    with pytest.raises(ConfigError, match="a torchani model of type ANIq with charges cannot be imported"):
        from_torchani(torchani.arch.simple_aniq(SPECIES, lot="wb97x-631gd", repulsion=False))
    model = simple_ani()
    model.aev_computer.radial.cutoff_fn = torchani.cutoffs.CutoffSmooth()
    with pytest.raises(ConfigError, match="two kinds of cutoff function, expected the same in all terms"):
        from_torchani(model)
    model.aev_computer.radial.cutoff_fn = torchani.cutoffs.CutoffSmooth(order=3)
    with pytest.raises(ConfigError, match="a smooth cutoff of order 3, expected 2"):
        from_torchani(model)
    model = simple_ani()
    model.neural_networks.members[1].atomics["C"].activation = nn.GELU(approximate="tanh")
    with pytest.raises(
        ConfigError, match="the network of C has an approximate GELU, expected approximate='none'"
    ):
        from_torchani(model)
