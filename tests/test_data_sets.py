"""Reference energies, splits and the report that is printed before training."""

import io

import numpy as np
import pytest
from numpy.testing import assert_allclose
from rich.console import Console

from nearsight import keys
from nearsight.data import (
    Frame,
    ReferenceEnergies,
    plausibility_warnings,
    reference_energies,
    report_table,
    split_frames,
    summarize,
    write_split,
)
from nearsight.errors import DataError


def molecule(symbols, energy=None, **info):
    labels = {} if energy is None else {keys.ENERGY: energy}
    return Frame(np.arange(3 * len(symbols)), list(symbols), np.zeros((3, 3)), [False] * 3, labels, info)


WATER, METHANE = ("O", "H", "H"), ("C", "H", "H", "H", "H")


def test_given_energies():
    choice = {"H": -1, "O": -2.5, "C": 3.0}
    reference = reference_energies([], ["H", "O"], choice)
    assert reference == ReferenceEnergies({"H": -1.0, "O": -2.5}, "given")
    assert reference.total(WATER) == -4.5
    with pytest.raises(DataError, match="no energy for N"):
        reference_energies([], ["H", "N"], choice)


def test_no_energies():
    assert reference_energies([], ["H"], "none") == ReferenceEnergies({"H": 0.0}, "none")


def test_isolated_atoms_are_preferred_where_every_species_has_one():
    frames = [molecule("O", -4.0), molecule("H", -1.0, config_type="IsolatedAtom"), molecule(WATER, -9.0)]
    assert reference_energies(frames, ["H", "O"]) == ReferenceEnergies(
        {"H": -1.0, "O": -4.0}, "isolated_atoms"
    )
    assert reference_energies(frames[1:], ["H", "O"]).source == "least_squares"
    with pytest.raises(DataError, match="no frame holds an isolated O atom"):
        reference_energies(frames[1:], ["H", "O"], "isolated_atoms")
    with pytest.raises(DataError, match=r"isolated O atoms have different energies, -4.000000 and -5.0"):
        reference_energies([*frames, molecule("O", -5.0)], ["H", "O"])


def test_periodic_single_atom_is_no_isolated_atom():
    crystal = Frame([[0, 0, 0]], ["H"], np.eye(3) * 3, [True] * 3, {keys.ENERGY: -1.0})
    assert reference_energies([crystal], ["H"]).source == "least_squares"


def test_least_squares_recovers_additive_energies():
    frames = [molecule(WATER, -4.0 - 2 * 1.5), molecule(METHANE, -7.0 - 4 * 1.5), molecule("OO", -8.0)]
    reference = reference_energies(frames, ["C", "H", "O"], "least_squares")
    assert_allclose([reference.values[s] for s in "CHO"], [-7.0, -1.5, -4.0], rtol=1e-12)


def test_least_squares_of_degenerate_compositions_shares_evenly():
    """All frames are water: only 2 E_H + E_O is determined; the common energy per atom is closest."""
    reference = reference_energies([molecule(WATER, -9.0), molecule(WATER, -12.0)], ["H", "O"])
    assert_allclose([reference.values["H"], reference.values["O"]], [-3.5, -3.5], rtol=1e-12)


def test_split_by_fraction_and_count():
    split = split_frames(100, validation=0.1, test=25, training=None, seed=3)
    assert (len(split.training), len(split.validation), len(split.test)) == (65, 10, 25)
    assert sorted(split.training + split.validation + split.test) == list(range(100))
    assert split == split_frames(100, validation=0.1, test=25, training=None, seed=3)
    assert split != split_frames(100, validation=0.1, test=25, training=None, seed=4)


def test_training_sets_of_a_learning_curve_are_nested():
    small, large = (split_frames(50, validation=5, test=5, training=count, seed=0) for count in (10, 20))
    assert set(small.training) < set(large.training)
    assert small.validation == large.validation


def test_a_small_fraction_is_at_least_one_frame():
    assert len(split_frames(4, validation=0.1, test=0.0, training=None, seed=0).validation) == 1


def test_index_files_are_what_was_written(tmp_path):
    split = split_frames(20, validation=5, test=3, training=None, seed=0)
    write_split(tmp_path / "split", vars(split), {name: ["a.xyz", "b.xyz"] for name in vars(split)})
    text = (tmp_path / "split/validation.txt").read_text()
    assert text.startswith("# validation: 5 frames, numbered from 0 through a.xyz, b.xyz\n")
    parts = {name: tmp_path / "split" / f"{name}.txt" for name in ("validation", "test", "training")}
    assert split_frames(20, **parts, seed=99) == split


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("3\n20\n", r"line 2: expected a frame number from 0 to 19, found '20'"),
        ("-1\n", "found '-1'"),
        ("3\n3\n", "names a frame twice"),
        (None, r"Index file .* of the validation set does not exist"),
    ],
)
def test_bad_index_files(tmp_path, lines, message):
    path = tmp_path / "validation.txt"
    if lines:
        path.write_text(lines)
    with pytest.raises(DataError, match=message):
        split_frames(20, validation=path, test=0, training=None, seed=0)


def test_excluded_frames_are_in_no_set():
    split = split_frames(10, validation=0.5, test=0, training=None, seed=0, excluded=[2, 3])
    assert sorted(split.training + split.validation) == [0, 1, 4, 5, 6, 7, 8, 9]
    assert len(split.validation) == 4


def test_impossible_splits(tmp_path):
    with pytest.raises(DataError, match="test set asks for 15 frames, but only 10 of 20 are left"):
        split_frames(20, validation=10, test=15, training=None, seed=0)
    with pytest.raises(DataError, match="None of 20 frames is left for training"):
        split_frames(20, validation=10, test=10, training=None, seed=0)
    path = tmp_path / "numbers.txt"
    path.write_text("# comment\n4\n")
    with pytest.raises(DataError, match="Frame 4 is in the index files of both validation and test"):
        split_frames(20, validation=path, test=path, training=None, seed=0)


def report(summaries, reference):
    console = Console(file=io.StringIO(), width=160)
    console.print(report_table(summaries, reference))
    return console.file.getvalue()


def test_report_counts_and_measures():
    frames = [molecule(WATER, -10.0), molecule(WATER, -13.0)]
    frames[0].labels[keys.FORCES] = np.array([[3.0, 4.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    frames[0].label_keys = {keys.FORCES: "REF_forces"}
    reference = ReferenceEnergies({"H": -2.0, "O": -3.0}, "given")
    summary = summarize(frames, reference)
    assert summary.forces == (0.0, 1.0, 5.0)
    assert_allclose(summary.binding, (-1.5, -2.0, -1.0))
    text = report({"training": summary, "validation": summarize(frames[:1], reference)}, reference)
    for expected in (
        "H 4, O 2",
        "forces (REF_forces)",
        "1 of 2 frames",
        "all frames",
        "0 / 1 / 5",
        "-1.5000",
        "-2.0000 … -1.0000",
        "E0 (given), eV: H -2.000000, O -3.000000",
    ):
        assert expected in text
    assert plausibility_warnings({"training": summary}, reference) == []


def test_report_warns_of_what_can_hardly_be_right():
    frames = [molecule(WATER, -900.0)]
    frames[0].labels[keys.FORCES] = np.zeros((3, 3))
    given = ReferenceEnergies({"H": -2.0, "O": -3.0}, "given")
    summaries = {"training": summarize(frames, given)}
    binding, forces = plausibility_warnings(summaries, given)
    assert "E - ΣE0 = -297.67 eV per atom" in binding and "not of the same method" in binding
    assert "forces of the training set are exactly zero" in forces
    fitted = ReferenceEnergies(given.values, "least_squares")
    assert "extremely compressed" in plausibility_warnings(summaries, fitted)[0]
