"""Importing n2p2 potentials: against plain loops from its manual's formulas, and against n2p2 itself."""

import numpy as np
import pytest
from n2p2_oracle import Potential as Oracle
from reference_data import reference_data
from typer.testing import CliRunner

from nearsight.cli.app import app
from nearsight.couple import evaluate
from nearsight.data import read_frames
from nearsight.errors import ConfigError, DataError
from nearsight.importers.imported import reference_check, self_check
from nearsight.importers.n2p2 import import_n2p2
from nearsight.interfaces.potential import Potential
from nearsight.neighbors import make_graph

SYMBOLS = ["O", "H", "H", "C", "O", "H"]
RADIAL = ["H 2 H 0.3 0.0 4.0", "H 2 O 0.3 0.8 4.0", "C 2 H 0.4 0.0 4.0", "O 2 H 0.1 1.0 3.8"]
# Every type, per element in n2p2's order: type, then its parameters.
EVERY_TYPE = [
    "H 2 O 0.2 0.0 4.0",
    "H 3 C H 0.05 1.0 2.5 4.0",
    "H 3 H O 0.05 1.0 4.0 4.0",
    "H 3 H O 0.05 -1.0 4.0 4.0 0.6",
    "H 9 O O 0.03 -1.0 1.0 3.9",
    "H 12 0.1 0.5 4.0",
    "H 13 0.05 0.2 1.0 3.0 4.0",
    "H 20 H -3.0 3.0 p1",
    "H 20 C 0.5 4.0 p1",
    "H 20 O 0.5 3.5 p2a",
    "H 20 O 0.8 4.0 p2a",
    "H 21 H O 0.0 4.0 30.0 150.0 p3",
    "H 21 H O 0.0 4.0 90.0 270.0 p3",
    "H 22 C O 0.5 4.0 -90.0 90.0 p4a",
    "H 23 0.0 4.0 e",
    "H 24 0.0 4.0 0.0 180.0 e",
    "H 25 0.0 3.5 20.0 160.0 p2",
    "C 2 H 0.4 0.0 4.0",
    "C 22 H O 0.3 4.0 0.0 140.0 p2",
    "O 2 H 0.1 1.0 3.8",
    "O 2 C 0.1 1.0 3.8",
    "O 9 H H 0.02 1.0 2.0 4.0 0.3",
]


def molecule(seed=0):
    rng = np.random.default_rng(seed)
    positions = np.zeros((0, 3))
    while len(positions) < len(SYMBOLS):
        candidate = rng.random(3) * 3.2
        if (np.linalg.norm(positions - candidate, axis=1) > 0.9).all():
            positions = np.vstack([positions, candidate])
    return positions


def evaluated(imported, positions):
    """Energy with reference energies, and forces, by the module."""
    model = imported.model
    species = [model.species.index(symbol) for symbol in SYMBOLS]
    graph = make_graph(positions, species, np.zeros((3, 3)), [False] * 3, model.cutoff)
    results = evaluate(model, graph, model.couple)
    energy = float(results.energy) + sum(imported.reference_energies[symbol] for symbol in SYMBOLS)
    return energy, results.forces.numpy()


def check(oracle, folder, seed=0):
    imported = import_n2p2(oracle.write(folder), 1.0, 1.0)
    positions = molecule(seed)
    energy, _ = evaluated(imported, positions)
    assert energy == pytest.approx(oracle.energy(positions, SYMBOLS), rel=1e-11)
    return imported


def test_every_type_of_symmetry_function(tmp_path):
    oracle = Oracle(EVERY_TYPE, cutoff_type="6 0.2", nodes=(5, 3), activations="ts", seed=4)
    imported = check(oracle, tmp_path / "n2p2")
    positions, step = molecule(), 1e-4
    moved = [[positions.copy(), positions.copy()] for _ in range(4)]
    for (plus, minus), (atom, axis) in zip(moved, [(0, 0), (1, 2), (3, 1), (5, 0)]):
        plus[atom, axis] += step
        minus[atom, axis] -= step
        force = (oracle.energy(minus, SYMBOLS) - oracle.energy(plus, SYMBOLS)) / (2 * step)
        assert evaluated(imported, positions)[1][atom, axis] == pytest.approx(force, rel=1e-6, abs=1e-7)
    imported.save(tmp_path / "model.pt")
    assert self_check(tmp_path / "model.pt").forces < 1e-11
    for precision, tolerance in (("double", 1e-11), ("mixed", 1e-5)):
        found = Potential(tmp_path / "model.pt", precision=precision).compute(
            positions, SYMBOLS, np.zeros((3, 3)), [False] * 3
        )
        energy, forces = evaluated(imported, positions)
        assert found.energy == pytest.approx(energy, rel=tolerance)
        assert found.forces == pytest.approx(forces, abs=tolerance * np.abs(forces).max())


@pytest.mark.parametrize(
    "cutoff_type", ["0", "1", "1 0.3", "2", "2 0.5", "3", "4", "4 0.2", "5", "6", "7", "8 0.6"]
)
def test_every_cutoff_function(tmp_path, cutoff_type):
    check(Oracle(RADIAL, cutoff_type=cutoff_type), tmp_path, seed=1)


@pytest.mark.parametrize("letter", "ltsSprgceh")
def test_every_activation_function(tmp_path, letter):
    check(Oracle(RADIAL, activations=letter + "t", nodes=(4, 3)), tmp_path, seed=2)


SCALING = {"scale_min_short": -0.3, "scale_max_short": 0.8}


@pytest.mark.parametrize(
    "options",
    [
        {"scale_symmetry_functions": ""},
        {"center_symmetry_functions": ""},
        {"scale_symmetry_functions": "", "center_symmetry_functions": "", **SCALING},
        {"scale_symmetry_functions_sigma": "", **SCALING},
        {"normalize_nodes": ""},
        {"mean_energy": -3.2, "conv_energy": 7.7, "conv_length": 2.1},
        {"atom_energy O": -75.1, "mean_energy": -3.2, "conv_energy": 7.7, "conv_length": 2.1},
    ],
)
def test_scaling_and_normalization(tmp_path, options):
    check(Oracle(RADIAL, options=options), tmp_path, seed=3)


def test_nodes_of_single_elements(tmp_path):
    oracle = Oracle(RADIAL, nodes=(4, 3), activations="tt", options={"element_nodes_short O 2": 6})
    first, (weight, bias), last = oracle.layers["O"]
    rng = np.random.default_rng(0)
    oracle.layers["O"] = [
        first,
        (rng.normal(size=(4, 6)), rng.normal(size=6)),
        (rng.normal(size=(6, 1)), bias[:1]),
    ]
    check(oracle, tmp_path)
    assert weight.shape == (4, 3)
    assert last[0].shape == (3, 1)


def test_units_change_lengths_and_energies(tmp_path):
    oracle = Oracle(EVERY_TYPE, options={"atom_energy O": -75.1})
    imported = import_n2p2(oracle.write(tmp_path), cflength=1.9, cfenergy=0.04)
    energy, forces = evaluated(imported, molecule() / 1.9)
    assert energy == pytest.approx(oracle.energy(molecule(), SYMBOLS) / 0.04, rel=1e-11)
    same = evaluated(import_n2p2(tmp_path, 1.0, 1.0), molecule())[1]
    assert forces == pytest.approx(same * 1.9 / 0.04, rel=1e-10)
    assert imported.model.cutoff == pytest.approx(4.0 / 1.9)


def test_the_order_of_functions_is_that_of_n2p2(tmp_path):
    """By type; Gaussians by cutoff, η, shift, ζ, λ, elements; compact ones by subtype, elements, radii."""
    lines = [
        "O 2 H 0.5 0.0 4.0",
        "O 2 H 0.1 1.0 5.0",
        "O 2 O 0.1 1.0 5.0",
        "O 2 H 0.1 2.0 5.0",
        "O 3 H O 0.1 -1.0 1.0 5.0",
        "O 3 O O 0.1 -1.0 1.0 5.0",
        "O 3 H H 0.1 1.0 1.0 5.0",
        "O 3 H H 0.1 -1.0 2.0 5.0",
        "O 20 H 2.0 4.0 p1",
        "O 20 H 1.0 5.0 p1",
        "O 20 O 0.0 1.0 p1",
        "O 20 H 0.0 1.0 p2",
        "H 2 O 0.5 0.0 4.0",
    ]
    oracle = Oracle(lines)
    imported = import_n2p2(oracle.write(tmp_path), 1.0, 1.0)
    records = imported.model.hyperparameters["descriptor"]["symmetry_functions"]["O"]
    first = [(r["kind"], r["neighbors"], r["cutoff"]) for r in records]
    assert imported.model.species == ["H", "O"]
    assert [r.get("eta", r.get("inner")) for r in records] == [
        0.5,
        0.1,
        0.1,
        0.1,
        *[0.1] * 4,
        2.0,
        1.0,
        0.0,
        0.0,
    ]
    assert first[2] == ("radial", ["O"], 5.0)
    assert [r["neighbors"] for r in records[4:7]] == [["H", "O"], ["O", "O"], ["H", "H"]]
    assert [r["lambda"] for r in records[4:8]] == [-1.0, -1.0, 1.0, -1.0]


def test_ranges_go_into_the_file(tmp_path):
    oracle = Oracle(RADIAL)
    weights = import_n2p2(oracle.write(tmp_path), 1.0, 1.0).model.weights()
    assert weights["H.min"].tolist() == pytest.approx(oracle.statistics["H"][:, 0])
    assert weights["H.max"].tolist() == pytest.approx(oracle.statistics["H"][:, 1])


def test_functions_without_use_are_named(tmp_path):
    oracle = Oracle(RADIAL)
    oracle.statistics["H"][0, 1] = oracle.statistics["H"][0, 0]
    oracle.statistics["H"][1, :2] = 1e300, -1e300
    notes = import_n2p2(oracle.write(tmp_path), 1.0, 1.0).notes
    assert notes == [
        "symmetry functions constant in the training set: H 1 radial(H) cutoff=4 eta=0.3 r_shift=0",
        "symmetry functions without a range: H 2 radial(O) cutoff=4 eta=0.3 r_shift=0.8",
    ]
    oracle.options = {"scale_symmetry_functions": ""}
    with pytest.raises(
        ConfigError, match=r"statistics to scale with: H 1 radial\(H\) cutoff=4 eta=0.3 r_shift=0$"
    ):
        import_n2p2(oracle.write(tmp_path), 1.0, 1.0)


# ---- errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("nnp_type 4G-HDNNP", r"cannot be imported: nnp_type 4G-HDNNP; expected a short-range potential"),
        (
            "use_electrostatics",
            "these keywords change the energy and cannot be imported: use_electrostatics;",
        ),
        ("element_activation_short H t s l", "element_activation_short"),
        ("nn_type_short 2", "nn_type_short"),
        ("cutoff_type 2", "line 10: the keyword cutoff_type appears a second time"),
        ("mean_energy 1.0", "has mean_energy; expected all or none of"),
        (
            "symfunction_short H 2 H 0.3 0.0",
            r"line 10: this symmetry function is not understood \(it ends too soon\)",
        ),
        ("symfunction_short H 5 H 0.3 0.0 4", r"type 5, expected 2, 3, 9, 12, 13 or 20 to 25"),
        ("symfunction_short H 2 N 0.3 0.0 4", "line 10: 'N' is not one of the elements H C O"),
        ("symfunction_short H 20 H 0.0 4 q2", r"not understood \(subtype q2\)"),
        ("symfunction_short H 20 H 0.0 4 ea", r"not understood \(subtype ea\)"),
        ("symfunction_short H 3 H H 0.3 1 0.5 4", r"zeta Input should be greater than or equal to 1"),
        (
            "element_nodes_short H 3 5",
            "line 10: element_nodes_short needs an element, a hidden layer and nodes",
        ),
        ("atom_energy O", "line 10: atom_energy needs an element and a number"),
    ],
)
def test_what_cannot_be_imported_is_named(tmp_path, change, message):
    Oracle(RADIAL).write(tmp_path)
    settings = tmp_path / "input.nn"
    lines = settings.read_text().splitlines()
    settings.write_text("\n".join([*lines[:9], change, *lines[9:]]) + "\n")
    with pytest.raises(ConfigError, match=message):
        import_n2p2(tmp_path, 1.0, 1.0)


@pytest.mark.parametrize(
    ("keyword", "replacement", "message"),
    [
        ("cutoff_type", "", "lacks the keyword cutoff_type"),
        ("cutoff_type", "cutoff_type 9", "cutoff_type must be 0 to 8 and an inner fraction below 1, found 9"),
        ("cutoff_type", "cutoff_type 1 1.0", "found 1 1.0"),
        ("elements", "elements H O", "number_of_elements is 3, but elements names 2: H O"),
        ("elements", "elements H O Xx", "'Xx' is not a chemical symbol"),
        ("number_of_elements", "number_of_elements three", "number_of_elements needs a number, found three"),
        ("global_nodes_short", "global_nodes_short", "1 hidden layers need as many nodes and activation"),
        ("global_activation_short", "global_activation_short q l", "the network cannot be read, 'q'"),
    ],
)
def test_wrong_settings_are_named(tmp_path, keyword, replacement, message):
    Oracle(RADIAL).write(tmp_path)
    settings = tmp_path / "input.nn"
    lines = settings.read_text().splitlines()
    settings.write_text("\n".join(replacement if line.startswith(keyword) else line for line in lines))
    with pytest.raises(ConfigError, match=message):
        import_n2p2(tmp_path, 1.0, 1.0)


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"input.nn does not exist; expected a folder with n2p2's input.nn"):
        import_n2p2(tmp_path, 1.0, 1.0)
    Oracle(RADIAL).write(tmp_path)
    weights, scaling = tmp_path / "weights.008.data", tmp_path / "scaling.data"
    text = weights.read_text()
    weights.write_text("\n".join(text.splitlines()[:-1]))
    with pytest.raises(ConfigError, match=r"weights.008.data has 12 weights, expected 13 for the symmetry"):
        import_n2p2(tmp_path, 1.0, 1.0)
    weights.write_text(text.replace("a", "", 1).replace("#", "x"))
    with pytest.raises(ConfigError, match=r"weights.008.data is damaged"):
        import_n2p2(tmp_path, 1.0, 1.0)
    weights.unlink()
    with pytest.raises(ConfigError, match=r"weights.008.data does not exist"):
        import_n2p2(tmp_path, 1.0, 1.0)
    scaling.write_text("\n".join(scaling.read_text().splitlines()[:-1]))
    with pytest.raises(
        ConfigError, match=r"function 1 of O \(3 1 …\), found the end of the file; does it belong"
    ):
        import_n2p2(tmp_path, 1.0, 1.0)


def test_unknown_keywords_and_output_letters_are_noted(tmp_path):
    Oracle(RADIAL).write(tmp_path)
    settings = tmp_path / "input.nn"
    text = settings.read_text().replace("short t l", "short t s") + "normalise_nodes\nnn_type_short 1\n"
    settings.write_text(text)
    notes = import_n2p2(tmp_path, 1.0, 1.0).notes
    assert notes == [
        "the output layer is linear, as n2p2 takes it, and not s",
        "keywords that n2p2 does not know, ignored: normalise_nodes",
    ]


# ---- the command


def test_the_command_checks_what_it_wrote(tmp_path):
    folder = Oracle(RADIAL, options={"atom_energy O": -2.0}).write(tmp_path / "potential")
    arguments = ["import", "n2p2", str(folder), "-o", str(tmp_path / "model.pt"), "--length-unit", "angstrom"]
    done = CliRunner().invoke(app, [*arguments, "--energy-unit", "eV"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "model.pt written." in done.output
    assert "Largest deviation of the native core from the scripted module: energy" in done.output
    for option, message in (
        ("length", "expected one of angstrom, bohr, nm"),
        ("energy", "expected one of eV"),
    ):
        with pytest.raises(ConfigError, match=f"--{option}-unit is 'furlong', {message}"):
            CliRunner().invoke(app, [*arguments, f"--{option}-unit", "furlong"], catch_exceptions=False)
    (tmp_path / "bare.xyz").write_text("1\nProperties=species:S:1:pos:R:3\nH 0 0 0\n")
    with pytest.raises(DataError, match=r"bare.xyz, frame 0 has no energy and forces to compare with"):
        reference_check(tmp_path / "model.pt", read_frames(tmp_path / "bare.xyz"))


# ---- n2p2's own results

WATER = {"energy": "n2p2_energy", "forces": "n2p2_forces"}


@pytest.fixture(scope="module")
def water(tmp_path_factory):
    """The published water model in the units of its reference."""
    folder = reference_data("n2p2_water")
    path = tmp_path_factory.mktemp("n2p2") / "water.pt"
    import_n2p2(folder, cflength=1.8897261328, cfenergy=0.0367493254).save(path)
    return path, read_frames(folder / "reference.extxyz", WATER)


def test_water_equals_n2p2(water):
    """Positions in the file have 8 digits: where the reference was computed with more, forces are off.

    For the triclinic liquid, displacements of 6e-9 Å make all forces equal to 1e-8 eV/Å.
    """
    path, frames = water
    by_name = {frame.info["name"]: reference_check(path, [frame]) for frame in frames}
    assert len(by_name) == 5
    assert max(found.relative_energy for found in by_name.values()) < 1e-11
    rounded = by_name.pop("liquid_192_triclinic")
    assert rounded.forces < 7e-7
    assert max(found.forces for found in by_name.values()) < 1e-7


def test_water_in_mixed_precision(water):
    path, frames = water
    for frame in frames:
        arguments = frame.positions, frame.symbols, frame.cell, frame.pbc
        exact = Potential(path).compute(*arguments)
        mixed = Potential(path, precision="mixed").compute(*arguments)
        assert mixed.forces == pytest.approx(exact.forces, abs=1.5e-5)  # of up to 7 eV/Å
        assert mixed.energy == pytest.approx(exact.energy, abs=1e-6 * len(frame))
