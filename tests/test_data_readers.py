"""Every format gives the same frames; labels are found where users keep them; bad data are refused."""

import bz2
import gzip
import io
import lzma

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from nearsight import keys
from nearsight.data import Frame, check_frame, read_frames, write_extxyz, write_hdf5
from nearsight.data.frame import check_distances
from nearsight.errors import DataError

VIRIAL = np.array([[1.0, 0.1, 0.2], [0.1, 2.0, 0.3], [0.2, 0.3, 3.0]])
CELL = np.array([[8.0, 0.0, 0.0], [1.0, 8.5, 0.0], [0.5, -1.0, 9.0]])


def labelled_frames(count=3):
    rng = np.random.default_rng(5)
    frames = []
    for number in range(count):
        n = 2 + number
        labels = {
            keys.ENERGY: -10.5 - number,
            keys.FORCES: rng.normal(size=(n, 3)),
            keys.VIRIAL: VIRIAL * (number + 1),
            keys.CHARGES: rng.normal(size=n),
            keys.DIPOLE: rng.normal(size=3),
            keys.BORN_CHARGES: rng.normal(size=(n, 3, 3)),
        }
        positions = np.arange(3 * n).reshape(n, 3) * 0.7
        symbols = ["O"] + ["H"] * (n - 1)
        frames.append(Frame(positions, symbols, CELL, [True, True, False], labels, {"config_type": "liquid"}))
    return frames


def assert_same(read, expected, tolerance=1e-7):
    assert len(read) == len(expected)
    for frame, other in zip(read, expected):
        assert frame.symbols == other.symbols
        assert_allclose(frame.positions, other.positions, atol=tolerance)
        assert_allclose(frame.cell, other.cell, atol=tolerance)
        assert (frame.pbc == other.pbc).all()
        assert frame.info["config_type"] == "liquid"
        assert set(frame.labels) == set(other.labels)
        for name, value in other.labels.items():
            assert_allclose(frame.labels[name], value, atol=tolerance)


@pytest.mark.parametrize("keyed", ["REF_bec", "born"])
def test_born_charges_with_the_displacement_first(tmp_path, keyed):
    write_extxyz(tmp_path / "data.xyz", labelled_frames())
    text = (tmp_path / "data.xyz").read_text().replace("REF_born_charges", keyed)
    (tmp_path / "data.xyz").write_text(text)
    frames = read_frames(tmp_path / "data.xyz", {"born_charges_transposed": keyed})
    for frame, other in zip(frames, labelled_frames()):
        expected = other.labels[keys.BORN_CHARGES].swapaxes(1, 2)
        assert_allclose(frame.labels[keys.BORN_CHARGES], expected, atol=1e-7)
        assert frame.label_keys[keys.BORN_CHARGES] == keyed


@pytest.mark.parametrize("key", ["REF_bec", "REF_born_charges"])
def test_born_charges_of_another_shape(tmp_path, key):
    write_extxyz(tmp_path / "data.xyz", labelled_frames(1))
    text = (tmp_path / "data.xyz").read_text().replace("REF_charges", key)
    (tmp_path / "data.xyz").write_text(text.replace("REF_born_charges:R:9", "other:R:9"))
    with pytest.raises(
        DataError, match=rf"born_charges \(key '{key}'\) has shape \(2,\), expected \(2, 3, 3"
    ):
        read_frames(tmp_path / "data.xyz")


@pytest.mark.parametrize("compress", [None, gzip, bz2, lzma], ids=["plain", "gz", "bz2", "xz"])
def test_extended_xyz_round_trip(tmp_path, compress):
    suffix = {None: "", gzip: ".gz", bz2: ".bz2", lzma: ".xz"}[compress]
    path = tmp_path / "data.xyz"
    write_extxyz(path, labelled_frames())
    if compress:
        content, path = path.read_bytes(), tmp_path / f"data.xyz{suffix}"
        path.write_bytes(compress.compress(content))
    frames = read_frames(path)
    assert_same(frames, labelled_frames())
    assert frames[2].source == f"data.xyz{suffix}, frame 2"
    assert frames[0].label_keys[keys.FORCES] == "REF_forces"


def test_compressed_file_of_another_format(tmp_path):
    buffer = io.StringIO()
    ase.io.write(buffer, Atoms("OH", [[0, 0, 0], [0, 0, 1]], cell=[5, 5, 5], pbc=True), format="vasp")
    (tmp_path / "POSCAR.gz").write_bytes(gzip.compress(buffer.getvalue().encode()))
    assert read_frames(tmp_path / "POSCAR.gz")[0].symbols == ["O", "H"]


def test_hdf5_round_trip_is_exact(tmp_path):
    frames = labelled_frames()
    del frames[1].labels[keys.FORCES], frames[0].labels[keys.ENERGY]
    write_hdf5(tmp_path / "data.h5", frames)
    assert_same(read_frames(tmp_path / "data.h5"), frames, tolerance=0)


def test_hdf5_files_of_others_and_of_the_future(tmp_path):
    import h5py

    path = tmp_path / "data.h5"
    path.write_bytes(b"no hdf5")
    with pytest.raises(DataError, match="cannot be read as HDF5"):
        read_frames(path)
    with h5py.File(path, "w") as file:
        file["energies"] = [1.0]
    with pytest.raises(DataError, match="not of nearsight's schema"):
        read_frames(path)
    write_hdf5(path, labelled_frames())
    with h5py.File(path, "a") as file:
        file.attrs["format_version"] = 99
    with pytest.raises(DataError, match="schema version 99, this nearsight reads up to 1"):
        read_frames(path)
    with h5py.File(path, "a") as file:
        file.attrs["format_version"] = 1
        del file["cell"]
    with pytest.raises(DataError, match="cell"):
        read_frames(path)


def test_ase_database(tmp_path):
    forces = np.array([[0.0, 0.0, 1.5], [0.0, 0.0, -1.5]])
    atoms = Atoms("OH", [[0, 0, 0], [0, 0, 1]], cell=CELL, pbc=[True, True, False])
    with ase.db.connect(tmp_path / "data.db") as database:
        database.write(atoms, REF_energy=-3.5, config_type="liquid", data={"REF_forces": forces})
    frame = read_frames(tmp_path / "data.db")[0]
    assert frame.labels[keys.ENERGY] == -3.5
    assert_allclose(frame.labels[keys.FORCES], forces)
    assert frame.info["config_type"] == "liquid"


@pytest.mark.parametrize("file_name", ["data.xyz", "data.traj", "data.db", "data.json"])
def test_labels_that_ase_moves_into_a_calculator(tmp_path, file_name):
    """Stress has ASE's sign and Voigt order (xx yy zz yz xz xy); virial = -stress * volume."""
    forces = np.array([[0.0, 0.0, 1.5], [0.0, 0.0, -1.5]])
    atoms = Atoms("OH", [[0, 0, 0], [0, 0, 1]], cell=CELL, pbc=True)
    volume = 8.0 * 8.5 * 9.0
    stress = -np.array([1.0, 2.0, 3.0, 0.3, 0.2, 0.1]) / volume
    atoms.calc = SinglePointCalculator(atoms, energy=-3.5, forces=forces, stress=stress)
    if file_name.endswith((".db", ".json")):
        with ase.db.connect(tmp_path / file_name) as database:
            database.write(atoms)
    else:
        ase.io.write(tmp_path / file_name, atoms)
    frame = read_frames(tmp_path / file_name)[0]
    assert frame.labels[keys.ENERGY] == pytest.approx(-3.5)
    assert_allclose(frame.labels[keys.FORCES], forces, atol=1e-8)
    assert_allclose(frame.labels[keys.VIRIAL], VIRIAL, atol=1e-6)
    assert frame.label_keys[keys.VIRIAL] == "stress (ASE calculator)"


def write_header(path, header):
    path.write_text(f"2\nLattice='10 0 0 0 10 0 0 0 10' {header}\nO 0 0 0\nH 0 0 1\n".replace("'", '"'))
    return path


@pytest.mark.parametrize(
    "header",
    [
        "REF_virial='1 .1 .2 .1 2 .3 .2 .3 3'",
        "REF_virial='1 2 3 .3 .2 .1'",
        "REF_stress='-1e-3 -1e-4 -2e-4 -1e-4 -2e-3 -3e-4 -2e-4 -3e-4 -3e-3'",
        "REF_stress='-1e-3 -2e-3 -3e-3 -3e-4 -2e-4 -1e-4'",
        "REF_virial='1 2 3 .3 .2 .1' REF_stress='7 7 7 0 0 0'",
    ],
)
def test_virial_and_stress_in_all_forms(tmp_path, header):
    frame = read_frames(write_header(tmp_path / "data.xyz", header))[0]
    assert_allclose(frame.labels[keys.VIRIAL], VIRIAL)


def test_configured_keys(tmp_path):
    path = write_header(tmp_path / "data.xyz", "dft=-2.0 energy=-1.0")
    assert read_frames(path)[0].labels[keys.ENERGY] == -1.0
    assert read_frames(path, {keys.ENERGY: "dft"})[0].labels[keys.ENERGY] == -2.0
    assert keys.ENERGY not in read_frames(path, {keys.ENERGY: "mp2"})[0].labels
    assert read_frames(path, {keys.ENERGY: "energy"})[0].label_keys[keys.ENERGY] == "energy (ASE calculator)"


def test_several_files_are_read_in_order(tmp_path):
    paths = [write_header(tmp_path / f"{number}.xyz", f"REF_energy={number}") for number in range(2)]
    assert [frame.labels[keys.ENERGY] for frame in read_frames(paths)] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("REF_energy=nan", r"data.xyz, frame 0: energy \(key 'REF_energy'\) is NaN or infinite"),
        ("REF_energy=1e12", "energy of 1e.12 eV for 2 atoms cannot be right"),
        ("REF_energy='1 2'", r"energy .* has shape \(2,\), expected \(\)"),
        ("REF_virial='1 2 3 4'", r"virial .* has shape \(4,\), expected \(3, 3\)"),
        ("REF_virial='1 5 0 0 1 0 0 0 1'", "virial is not symmetric"),
        ("REF_dipole='1 2'", r"dipole .* expected \(3,\)"),
    ],
)
def test_absurd_labels_are_refused(tmp_path, header, message):
    with pytest.raises(DataError, match=message):
        read_frames(write_header(tmp_path / "data.xyz", header))


def test_forces_beyond_the_limit_are_refused(tmp_path):
    frame = labelled_frames(1)[0]
    frame.labels[keys.FORCES][1] = [0.0, 600.0, 0.0]
    write_extxyz(tmp_path / "data.xyz", [frame])
    with pytest.raises(DataError, match=r"a force of 600 eV/Å exceeds data\.max_force = 500"):
        read_frames(tmp_path / "data.xyz")
    assert len(read_frames(tmp_path / "data.xyz", max_force=1000.0)) == 1


def test_stress_without_a_cell_is_refused(tmp_path):
    path = tmp_path / "data.xyz"
    path.write_text('1\nProperties=species:S:1:pos:R:3 REF_stress="1 1 1 0 0 0"\nO 0 0 0\n')
    with pytest.raises(DataError, match=r"has a stress .* but no cell"):
        read_frames(path)


def test_unreadable_files(tmp_path):
    with pytest.raises(DataError, match=r"none.xyz' does not exist"):
        read_frames(tmp_path / "none.xyz")
    (tmp_path / "empty.xyz").write_text("")
    with pytest.raises(DataError, match="holds no frames"):
        read_frames(tmp_path / "empty.xyz")
    (tmp_path / "short.xyz").write_text("3\n\nO 0 0 0\n")
    with pytest.raises(DataError, match=r"short.xyz' cannot be read: XYZError"):
        read_frames(tmp_path / "short.xyz")
    (tmp_path / "what.abc").write_text("nothing")
    with pytest.raises(DataError, match=r"format of 'what.abc' is not known; expected extended XYZ"):
        read_frames(tmp_path / "what.abc")
    (tmp_path / "broken.xyz.xz").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"broken.xyz.xz' cannot be read"):
        read_frames(tmp_path / "broken.xyz.xz")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positions": np.empty((0, 3)), "symbols": []}, "holds no atoms"),
        ({"positions": [[0, 0, 0]]}, "2 symbols but 1 positions"),
        ({"positions": [[0, 0, np.nan], [1, 1, 1]]}, "a position that is NaN"),
        ({"cell": np.zeros((3, 3))}, "periodic along a but has no lattice vector"),
        ({"cell": [[5, 0, 0], [0, 5, 0], [5, 5, 0]]}, "degenerate cell"),
        ({"cell": np.diag([5, 5, 0.1])}, "faces of the cell are only 0.1 Å apart"),
        ({"positions": [[0, 0, 0.02], [5, 5, 4.95]]}, r"atoms 0 \(O\) and 1 \(H\) .* on top .* 0.07 Å"),
    ],
)
def test_impossible_structures_are_refused(changes, message):
    positions = [[0, 0, 0], [2, 2, 2]]
    values = {"positions": positions, "symbols": ["O", "H"], "cell": np.eye(3) * 5, "pbc": [True] * 3}
    check_frame(Frame(**values))
    with pytest.raises(DataError, match=message):
        check_frame(Frame(**{**values, **changes}))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.tuples(st.booleans(), st.booleans(), st.booleans()))
def test_close_pairs_agree_with_brute_force(seed, pbc):
    """Oracle: all images of all pairs."""
    rng = np.random.default_rng(seed)
    cell = np.eye(3) * 3.0 + rng.uniform(-0.5, 0.5, size=(3, 3))
    positions = rng.uniform(-6, 6, size=(12, 3))
    positions[7] = positions[3] + rng.integers(-2, 3, size=3) * pbc @ cell + rng.uniform(-0.1, 0.1, size=3)
    shifts = np.array(list(np.ndindex(13, 13, 13))) - 6
    shifts = shifts[(shifts == 0)[:, ~np.array(pbc)].all(axis=1)]
    vectors = positions[None, :, None] - positions[:, None, None] + shifts @ cell
    distances = np.linalg.norm(vectors, axis=-1)
    distances[np.arange(12), np.arange(12)] = np.inf
    least = distances.min()
    frame = Frame(positions, ["H"] * 12, cell, pbc)
    check_distances(frame, least * (1 - 1e-9))
    with pytest.raises(DataError, match="on top of each other"):
        check_distances(frame, least * (1 + 1e-9))
