"""DeePMD-kit's folders and input.data of n2p2 and RuNNer: what was written, in Å and eV."""

import gzip
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from numpy.testing import assert_allclose

from nearsight import keys
from nearsight.cli.evaluate import _runner_units
from nearsight.data import read_frames
from nearsight.errors import ConfigError, DataError
from nearsight.training.config_file import parse_config
from nearsight.training.datasets import read_sets
from nearsight.units import BOHR, HARTREE, KCAL_PER_MOL

CELL = np.array([[8.0, 0.0, 0.0], [1.0, 8.5, 0.0], [0.5, -1.0, 9.0]])
VIRIAL = np.array([[1.0, 0.1, 0.2], [0.1, 2.0, 0.3], [0.2, 0.3, 3.0]])
WATER = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])


def write_deepmd(folder: Path, frames: int = 5, sets=(3, 2), **arrays) -> dict[str, np.ndarray]:
    """One system of water molecules; `arrays` replace or, as None, leave out files of the sets."""
    rng = np.random.default_rng(2)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "type.raw").write_text("1\n0\n0\n")
    (folder / "type_map.raw").write_text("H\nO\n")
    values = {
        "coord": (WATER + rng.uniform(-0.1, 0.1, (frames, 3, 3))).reshape(frames, 9),
        "box": np.tile(CELL.ravel(), (frames, 1)),
        "energy": rng.normal(size=frames),
        "force": rng.normal(size=(frames, 9)),
        "virial": np.tile(VIRIAL.ravel(), (frames, 1)),
    } | arrays
    values = {name: array for name, array in values.items() if array is not None}
    first = 0
    for number, size in enumerate(sets):
        part = folder / f"set.{number:03d}"
        part.mkdir(exist_ok=True)
        for name, array in values.items():
            np.save(part / f"{name}.npy", array[first : first + size])
        first += size
    return values


def test_deepmd_round_trip(tmp_path):
    values = write_deepmd(tmp_path / "water")
    frames = read_frames(tmp_path / "water")
    assert [frame.source for frame in frames[2:4]] == ["water/set.000, frame 2", "water/set.001, frame 0"]
    for number, frame in enumerate(frames):
        assert frame.symbols == ["O", "H", "H"] and frame.pbc.all()
        assert_allclose(frame.positions.ravel(), values["coord"][number], rtol=0)
        assert_allclose(frame.cell, CELL, rtol=0)
        assert frame.labels[keys.ENERGY] == values["energy"][number]
        assert_allclose(frame.labels[keys.FORCES].ravel(), values["force"][number], rtol=0)
        assert_allclose(frame.labels[keys.VIRIAL], VIRIAL, rtol=0)
    assert frames[0].label_keys == {"energy": "energy.npy", "forces": "force.npy", "virial": "virial.npy"}


def test_deepmd_virial_is_minus_the_strain_derivative(tmp_path):
    """A dimer under E = (|r|/σ)^-12: compressed, so that its virial, and a pressure from it, is positive."""
    length, strain = 1.1, 1e-5
    energies = [(length * (1 + s)) ** -12 for s in (-strain, strain)]
    virial = np.zeros((1, 9))
    virial[0, 0] = -(energies[1] - energies[0]) / (2 * strain)
    coord = np.array([[0, 0, 0, length, 0, 0, 4, 4, 4.0]])
    write_deepmd(tmp_path / "dimer", 1, (1,), coord=coord, virial=virial)
    (frame,) = read_frames(tmp_path / "dimer")
    assert_allclose(frame.labels[keys.VIRIAL][0, 0], 12 * length**-12, rtol=1e-8)


def test_deepmd_shapes_and_types_that_occur(tmp_path):
    """Single precision, one column, positions as [frames, n, 3]; labels that only some sets have."""
    energy = np.arange(5, dtype=np.float32).reshape(5, 1)
    coord = np.tile(WATER, (5, 1, 1))
    write_deepmd(tmp_path / "water", energy=energy, coord=coord, virial=None)
    (tmp_path / "water/set.001/force.npy").unlink()
    frames = read_frames(tmp_path / "water")
    assert [frame.labels[keys.ENERGY] for frame in frames] == [0, 1, 2, 3, 4]
    assert [keys.FORCES in frame.labels for frame in frames] == [True] * 3 + [False] * 2
    assert_allclose(frames[4].positions, WATER)


def test_deepmd_without_periodic_directions(tmp_path):
    write_deepmd(tmp_path / "water", box=None, virial=None)
    with pytest.raises(DataError, match=r"set.000/box.npy' is missing"):
        read_frames(tmp_path / "water")
    (tmp_path / "water/nopbc").touch()
    frame = read_frames(tmp_path / "water")[0]
    assert not frame.pbc.any() and not frame.cell.any()


def test_deepmd_mixed_types_and_padding(tmp_path):
    types = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0], [1, 1, 1], [-1, 0, 1]])
    values = write_deepmd(tmp_path / "mixed", real_atom_types=types)
    frames = read_frames(tmp_path / "mixed")
    assert ["".join(frame.symbols) for frame in frames] == ["OHH", "HH", "HOH", "OOO", "HO"]
    assert_allclose(frames[4].labels[keys.FORCES], values["force"][4].reshape(3, 3)[1:])
    assert_allclose(frames[1].positions, values["coord"][1].reshape(3, 3)[:2])


def test_deepmd_folder_of_systems(tmp_path):
    write_deepmd(tmp_path / "all/a/one")
    write_deepmd(tmp_path / "all/b")
    assert [frame.source.split(",")[0] for frame in read_frames([tmp_path / "all"])[::5]] == [
        "one/set.000",
        "b/set.000",
    ]


def test_deepmd_labels_under_other_names(tmp_path):
    dipole, charges = np.ones((5, 3)), np.full((5, 3), [-0.8, 0.4, 0.4])
    write_deepmd(tmp_path / "water", mp2=np.full(5, 7.0), dipole=dipole, atomic_charge=charges)
    label_keys = {keys.ENERGY: "mp2", keys.DIPOLE: "dipole", keys.CHARGES: "atomic_charge", keys.FORCES: "no"}
    frame = read_frames(tmp_path / "water", label_keys)[0]
    assert frame.labels[keys.ENERGY] == 7.0 and keys.FORCES not in frame.labels
    assert_allclose(frame.labels[keys.CHARGES], [-0.8, 0.4, 0.4])
    assert frame.label_keys[keys.ENERGY] == "mp2.npy"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("type.raw", None, "holds no DeePMD-kit system: there is no type.raw in it or below"),
        ("type.raw", "O H H", "type.raw' must hold numbers of types from 0, one per atom"),
        ("type.raw", "2 0 0", "has an atom of type 2, and type_map.raw names 2 types, from 0"),
        ("type.raw", "1 0", r"coord.npy' cannot be read as any number of frames of 6 numbers"),
        ("type_map.raw", None, "has no type_map.raw: write the chemical symbols of its types there"),
        ("type_map.raw", "H Ox", "names the type 'Ox', which is no chemical symbol"),
        ("set.000/coord.npy", None, r"set.000/coord.npy' is missing"),
        ("set.000/force.npy", "text", r"force.npy' cannot be read as 3 frames of 9 numbers"),
        ("set.000/energy.npy", np.zeros(2), r"energy.npy' cannot be read as 3 frames of 1 numbers"),
        ("set.000/energy.npy", np.full(3, np.nan), r"set.000, frame 0: energy \(key 'energy.npy'\) is NaN"),
    ],
)  # fmt: skip
def test_deepmd_mistakes(tmp_path, file, content, message):
    write_deepmd(tmp_path / "water")
    path = tmp_path / "water" / file
    path.unlink()
    if isinstance(content, str):
        path.write_text(content)
    elif content is not None:
        np.save(path, content)
    with pytest.raises(DataError, match=message):
        read_frames(tmp_path / "water")


def test_deepmd_without_sets(tmp_path):
    write_deepmd(tmp_path / "water", sets=())
    with pytest.raises(DataError, match=r"has no folder set.000 with the frames"):
        read_frames(tmp_path / "water")


RUNNER = """\
begin
comment two atoms of water, charged
lattice 10.0 0.0 0.0
lattice 1.0 11.0 0.0
lattice 0.5 -1.0 12.0
atom 0.0 0.0 0.0 O -0.5 0.0 0.1 0.2 0.3
atom 1.0 1.5 0.0 H 0.25 0.0 -0.1 -0.2 -0.3
energy -2.5
charge 1.0
end

begin
atom 0.0 0.0 0.0 H 0.0 0.0 0.0 0.0 0.0
energy -0.5
charge 0.0
end
"""


@pytest.mark.parametrize(
    ("units", "length", "energy"),
    [
        (None, BOHR, HARTREE),
        ({"length": "angstrom", "energy": "eV"}, 1.0, 1.0),
        ({"energy": "kcal/mol"}, BOHR, KCAL_PER_MOL),
        ({"length": "nm", "energy": "kJ/mol"}, 10.0, KCAL_PER_MOL / 4.184),
    ],
)
def test_runner_units(tmp_path, units, length, energy):
    (tmp_path / "input.data").write_text(RUNNER)
    first, second = read_frames(tmp_path / "input.data", runner_units=units)
    assert first.symbols == ["O", "H"] and first.pbc.all()
    assert_allclose(first.cell, np.array([[10, 0, 0], [1, 11, 0], [0.5, -1, 12]]) * length, rtol=1e-15)
    assert_allclose(first.positions[1], np.array([1.0, 1.5, 0.0]) * length, rtol=1e-15)
    assert_allclose(first.labels[keys.ENERGY], -2.5 * energy, rtol=1e-15)
    assert_allclose(first.labels[keys.FORCES][0], np.array([0.1, 0.2, 0.3]) * energy / length, rtol=1e-15)
    assert_allclose(first.labels[keys.CHARGES], [-0.5, 0.25])
    assert first.info == {"comment": "two atoms of water, charged", "total_charge": 1.0}
    assert first.source == "input.data, frame 0"
    assert not second.pbc.any() and not second.cell.any() and second.labels[keys.CHARGES] == [0.0]


def test_runner_constants():
    """CODATA 2018, as written by its publisher."""
    assert (BOHR, HARTREE) == (0.529177210903, 27.211386245988)


def test_runner_compressed_and_under_any_name(tmp_path):
    (tmp_path / "train.txt.gz").write_bytes(gzip.compress(RUNNER.encode()))
    assert len(read_frames(tmp_path / "train.txt.gz")) == 2


def test_runner_charges_that_are_zero_throughout_are_none(tmp_path):
    (tmp_path / "input.data").write_text(RUNNER.replace("-0.5 0.0 0.1", "0 0 0.1").replace("0.25", "0"))
    assert all(keys.CHARGES not in frame.labels for frame in read_frames(tmp_path / "input.data"))


def test_runner_file_of_ase(tmp_path):
    """Independent program: ASE's writer, which names the columns (RuNNer 2), in bohr and hartree."""
    rng = np.random.default_rng(4)
    images = []
    for pbc in (True, False):
        atoms = Atoms("OHH", WATER, cell=CELL if pbc else None, pbc=pbc)
        atoms.set_initial_charges([-0.8, 0.4, 0.4])
        atoms.calc = SinglePointCalculator(atoms, energy=rng.normal(), forces=rng.normal(size=(3, 3)))
        images.append(atoms)
    ase.io.write(tmp_path / "input.data", images, format="runnerdata")
    for frame, atoms in zip(read_frames(tmp_path / "input.data"), images, strict=True):
        tolerance = {"rtol": 1e-7, "atol": 1e-8}  # ASE's constants are CODATA 2014; ten digits are written
        assert_allclose(frame.positions, atoms.positions, **tolerance)
        assert_allclose(frame.cell, atoms.cell.array, **tolerance)
        assert_allclose(frame.labels[keys.ENERGY], atoms.get_potential_energy(), **tolerance)
        assert_allclose(frame.labels[keys.FORCES], atoms.get_forces(), **tolerance)
        assert_allclose(frame.labels[keys.CHARGES], [-0.8, 0.4, 0.4])


@pytest.mark.parametrize(
    ("old", "new", "line", "expected", "found"),
    [
        ("end\n\n", "\n", 11, "atom, lattice, energy, charge, comment or end", "begin"),
        ("end\n\n", "end\natom\n", 11, "'begin'", "atom"),
        ("lattice 0.5 -1.0 12.0\n", "", 9, "three lattice vectors or none before 'end'", "2"),
        ("11.0 0.0", "11.0", 4, "three numbers after 'lattice'", "1.0 11.0"),
        ("11.0", "x", 4, "three numbers after 'lattice'", "1.0 x 0.0"),
        (" -0.3\n", "\n", 7, "9 columns after 'atom'", "1.0 1.5 0.0 H 0.25 0.0 -0.1 -0.2"),
        ("1.5 0.0 H", "y 0.0 H", 7, "numbers beside the symbol H", "1.0 y 0.0 0.25 0.0 -0.1 -0.2 -0.3"),
        ("1.5 0.0 H", "1.5 0.0 Hx", 7, "a chemical symbol in column 4 after 'atom'", "Hx"),
        ("energy -2.5", "energy", 8, "a number after 'energy'", ""),
        ("charge 1.0", "charge e", 9, "a number after 'charge'", "e"),
        ("begin\nc", "begin position(3\nc", 1, "names of columns such as force(3)", "position(3"),
        ("begin\nc", "begin position(3)\nc", 1, "element(1) among the columns after 'begin'", "position(3)"),
        ("begin\nc", "begin r(3) symbol\nc", 1, "position(3) among the columns after 'begin'", "r(3) symbol"),
    ],
)
def test_runner_mistakes(tmp_path, old, new, line, expected, found):
    assert old in RUNNER
    (tmp_path / "input.data").write_text(RUNNER.replace(old, new, 1))
    with pytest.raises(DataError) as caught:
        read_frames(tmp_path / "input.data")
    assert str(caught.value) == f"'input.data', line {line}: expected {expected}, found {found!r}."


def test_runner_file_that_was_cut_off(tmp_path):
    (tmp_path / "input.data").write_text(RUNNER[: RUNNER.rindex("end")])
    with pytest.raises(DataError, match="line 15: the file ends, and the structure of line 12 has no 'end'"):
        read_frames(tmp_path / "input.data")


def test_training_and_evaluation_read_both(tmp_path):
    """Folders and input.data in data.training, with the units of the configuration and hashes of both."""
    write_deepmd(tmp_path / "water")
    (tmp_path / "input.data").write_text(RUNNER)
    data = {
        "training": [str(tmp_path / "water"), str(tmp_path / "input.data")],
        "validation": 2,
        "reference_energies": "none",
        "runner_units": {"length": "angstrom", "energy": "eV"},
    }
    config = parse_config({"data": data, "model": {"cutoff": 4.0}})
    sets = read_sets(config.data, config.training.loss)
    assert len(sets.frames["training"]) == 5
    assert -2.5 in [frame.labels[keys.ENERGY] for part in sets.frames.values() for frame in part]
    before = sets.hashes
    np.save(tmp_path / "water/set.001/energy.npy", np.zeros(2))
    after = read_sets(config.data, config.training.loss).hashes
    assert [before[name] == after[name] for name in data["training"]] == [False, True]


def test_units_on_the_command_line():
    assert _runner_units(["length=angstrom", "energy=kcal/mol"]) == {
        "length": "angstrom",
        "energy": "kcal/mol",
    }
    for wrong in ("length=eV", "angstrom", "mass=eV"):
        with pytest.raises(
            ConfigError, match=r"must be length=angstrom\|bohr\|nm or energy=eV\|hartree\|kcal"
        ):
            _runner_units([wrong])


def test_unknown_unit_in_the_configuration():
    data = {"training": "input.data", "runner_units": {"length": "furlong"}}
    with pytest.raises(
        ConfigError, match=r"data.runner_units.length is 'furlong', expected 'angstrom', 'bohr'"
    ):
        parse_config({"data": data})
