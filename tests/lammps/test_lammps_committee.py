"""Deviations of a committee and extrapolations in LAMMPS: as in Python, on any number of ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from lammps_harness import ENERGY, LENGTH, Run, run_script, write_data
from lammps_systems import cluster_in_a_corner, grid, orthogonal

import nearsight
from nearsight import uncertainty

ATOMS = grid((3, 3, 3))
NVE = ("velocity all create 300.0 4928459 loop geom", "fix 1 all nve", "timestep 0.0005")
EXTRA = " ".join(f"c_extra[{k}]" for k in range(1, 9))
# Name -> (model, atoms, units, lines after read_data).
SYSTEMS: dict[str, tuple[str, Atoms, str, tuple[str, ...]]] = {
    "triclinic": ("committee", grid((5, 4, 4)), "metal", ()),
    "box shorter than the cutoff": ("committee", grid((2, 1, 2), spacing=2.9), "metal", ()),
    "empty ranks": ("committee", cluster_in_a_corner(), "metal", ()),
    "tiled": ("committee", orthogonal((6, 4, 4)), "metal", ("comm_style tiled", "run 0", "balance 1.0 rcb")),
    "units real": ("committee", ATOMS, "real", ()),
    "messages": ("committee of messages", grid((5, 4, 4)), "metal", ()),
    "messages, empty ranks": ("committee of messages", cluster_in_a_corner(), "metal", ()),
}


def script(model: Path, *lines: str, words: str, units: str = "metal", data: int = 0) -> list[str]:
    return [
        "clear",
        f"units {units}",
        "atom_style atomic",
        f"read_data data.{data}",
        f"neighbor {0.5 / LENGTH[units]!r} bin",
        f"pair_style mlp precision double {words}",
        f"pair_coeff * * {model} O H",
        "compute extra all pair mlp",
        f"thermo_style custom step pe {EXTRA}",
        "thermo_modify format float %.17g norm no",
        *lines,
    ]


def run(folder: Path, lines: Sequence[str], ranks: int = 1, atoms: Atoms = ATOMS) -> Run:
    write_data(folder / "data.0", atoms, ["O", "H"])
    done = run_script(folder, lines, ranks)
    assert done.code == 0, done.output[-3000:]
    return done


def thermo(output: str) -> np.ndarray:
    """Rows of step, energy and the eight extra values."""
    rows = []
    for line in output.splitlines():
        try:
            rows.append([float(word) for word in line.split()])
        except ValueError:
            continue
    return np.array([row for row in rows if len(row) == 10])


@pytest.fixture(scope="module")
def results(
    models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], dict[str, tuple[np.ndarray, np.ndarray]]]:
    """On so many ranks: name -> extra values and deviations of the atoms; each rank count runs once."""
    done: dict[int, dict[str, tuple[np.ndarray, np.ndarray]]] = {}

    def get(ranks: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        if ranks in done:
            return done[ranks]
        folder = tmp_path_factory.mktemp(f"ranks{ranks}")
        lines: list[str] = []
        for k, (model, atoms, units, more) in enumerate(SYSTEMS.values()):
            write_data(folder / f"data.{k}", atoms, ["O", "H"], units)
            words = "deviation 1" + (" extrapolation warn 1" if model == "committee" else "")
            lines += script(models[model], *more, words=words, units=units, data=k)
            lines += ["fix d all pair 1 mlp deviation 1", "run 0"]
            lines += [f"write_dump all custom dump.{k} id f_d modify sort id format float %.17g"]
            lines += [f'print "CASE {k}"']
        output = run_script(folder, lines, ranks)
        assert output.code == 0, output.output[-3000:]
        parts = output.output.split("CASE ")
        done[ranks] = {
            name: (thermo(parts[k])[-1, 2:], np.loadtxt(folder / f"dump.{k}", skiprows=9)[:, 1])
            for k, name in enumerate(SYSTEMS)
        }
        return done[ranks]

    return get


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("name", SYSTEMS)
def test_deviations_and_counts_are_those_of_python(
    models: dict[str, Path], results: Callable[[int], dict], name: str, ranks: int
) -> None:
    model, atoms, units, _ = SYSTEMS[name]
    potential = nearsight.Potential(models[model])
    ranges = model == "committee"
    found = potential.compute(
        atoms.positions,
        atoms.get_chemical_symbols(),
        atoms.cell.array,
        atoms.pbc,
        members=True,
        extrapolations=ranges,
    )
    extra, of_atoms = results(ranks)[name]
    force = ENERGY[units] / LENGTH[units]
    np.testing.assert_allclose(of_atoms, found.forces_std / force, rtol=1e-10)
    max_v, min_v, avg_v, *forces = astuple(found.deviation)
    np.testing.assert_allclose(extra[:3], np.array(forces) / force, rtol=1e-10)
    virials = np.array([max_v, min_v, avg_v]) / ENERGY[units]
    np.testing.assert_allclose(extra[3:6], virials, rtol=1e-10, atol=1e-10 * virials[0])
    # The members' energies are some 1e5 eV.
    np.testing.assert_allclose(extra[6], found.energy_std / ENERGY[units], rtol=1e-8)
    assert found.energy_std > 0.01
    assert extra[7] == (sum(e.count for e in found.extrapolations) if ranges else 0)


def test_file_has_the_columns_of_deepmd(models: dict[str, Path], tmp_path: Path) -> None:
    """One line for each step of `deviation`, whatever the runs; the numbers as Python writes them."""
    words = "deviation 4 file dev.out"
    lines = script(models["committee"], *NVE, "run 0", "run 6", "run 6", words=words)
    lines += ["write_dump all custom dump.12 id x y z modify sort id format float %.17g"]
    run(tmp_path, lines, 2)
    text = (tmp_path / "dev.out").read_text().splitlines()
    assert text[0] == uncertainty.FILE_HEADER
    assert [int(row.split()[0]) for row in text[1:]] == [0, 4, 8, 12]
    potential = nearsight.Potential(models["committee"])
    last = np.loadtxt(tmp_path / "dump.12", skiprows=9)[:, 1:]
    for row, positions in ((text[1], ATOMS.positions), (text[-1], last)):
        found = potential.compute(
            positions, ATOMS.get_chemical_symbols(), ATOMS.cell.array, True, members=True
        )
        assert row == found.deviation.file_row(int(row.split()[0]))


def test_looking_changes_nothing_and_values_stay_between(models: dict[str, Path], tmp_path: Path) -> None:
    lines = ["thermo 1", *NVE, "run 6"]
    watched = thermo(run(tmp_path, script(models["committee"], *lines, words="deviation 3")).output)
    blind = thermo(run(tmp_path, script(models["committee"], *lines, words="deviation 1000")).output)
    assert (watched[:, 1] == blind[:, 1]).all()
    assert (blind[1:, 2] == blind[0, 2]).all()
    first = watched[:, 2]
    assert first[0] == first[1] == first[2] != first[3] == first[4] == first[5] != first[6]


@pytest.mark.parametrize("value", [1, 8])
def test_fix_halt_stops_on_the_same_step(models: dict[str, Path], tmp_path: Path, value: int) -> None:
    """Hot atoms, few steps: the largest force deviation, or the number of extrapolations, passes a limit
    before the trajectories of different ranks part."""
    hot = ("velocity all create 20000.0 4928459 loop geom", "fix 1 all nve", "timestep 0.0005", "thermo 2")
    words = "deviation 2 extrapolation warn 1000"

    def rows(*lines: str, ranks: int = 1) -> np.ndarray:
        text = script(models["committee"], *hot, *lines, "run 10", words=words)
        return thermo(run(tmp_path, text, ranks).output)

    free = rows()[:, 1 + value]
    limit = 0.5 * (free[0] + free.max())
    halt = (f"variable d equal c_extra[{value}]", f"fix stop all halt 2 v_d > {limit:.17g} error continue")
    steps = [rows(*halt, ranks=ranks)[-1, 0] for ranks in (1, 4)]
    assert steps[0] == steps[1] == 2 * np.argmax(free > limit)
    assert 0 < steps[0] < 10


def test_atoms_outside_of_the_model(models: dict[str, Path], tmp_path: Path) -> None:
    """They have no deviation, and count neither in averages nor in the virial per atom."""
    lines = script(models["committee"], words="")
    lines[5:7] = [
        "pair_style hybrid/overlay mlp precision double deviation 1 lj/cut 4.0",
        f"pair_coeff * * mlp {models['committee']} NULL H",
        "pair_coeff * * lj/cut 0.01 2.0",
    ]
    lines += ["fix d all pair 1 mlp deviation 1", "run 0"]
    lines += ["write_dump all custom dump.d id f_d modify sort id format float %.17g"]
    extra = thermo(run(tmp_path, lines, 2).output)[-1, 2:]
    of_atoms = np.loadtxt(tmp_path / "dump.d", skiprows=9)[:, 1]
    hydrogen = ATOMS[ATOMS.symbols == "H"]
    found = nearsight.Potential(models["committee"]).compute(
        hydrogen.positions, ["H"] * len(hydrogen), ATOMS.cell.array, True, members=True
    )
    np.testing.assert_allclose(of_atoms[ATOMS.symbols == "H"], found.forces_std, rtol=1e-10)
    assert not of_atoms[ATOMS.symbols == "O"].any()
    max_v, _, avg_v, *forces = astuple(found.deviation)
    np.testing.assert_allclose([*extra[:4], extra[5]], [*forces, max_v, avg_v], rtol=1e-10)


def test_restart_keeps_the_words_and_the_file(models: dict[str, Path], tmp_path: Path) -> None:
    words = "deviation 5 file dev.out extrapolation warn 5 extrapolation stop 1000000"
    run(tmp_path, script(models["committee"], *NVE, "run 5", "write_restart w.restart", words=words))
    output = run(tmp_path, ["read_restart w.restart", *NVE[1:], "run 5"], 2).output
    rows = (tmp_path / "dev.out").read_text().splitlines()
    assert [row.split()[-7:][0] for row in rows] == ["step", "0", "5", "5", "10"]
    assert "(steps 6 to 10)" in output


def test_summary_of_extrapolations(models: dict[str, Path], tmp_path: Path) -> None:
    """Counts and the farthest feature of all ranks by name, once in so many steps."""
    atoms = grid((3, 3, 3), spacing=1.9)
    found = nearsight.Potential(models["committee"]).compute(
        atoms.positions, atoms.get_chemical_symbols(), atoms.cell.array, True, extrapolations=True
    )
    count = sum(e.count for e in found.extrapolations)
    worst = max(found.extrapolations, key=lambda extrapolation: extrapolation.beyond)
    sentence = (
        f"pair_style mlp: {count} extrapolations, {len(found.extrapolations)} of 92 features outside of "
        f"their training ranges, the farthest '{worst.label}' of {worst.species}: {worst.value:g}, range "
        f"{worst.minimum:g} to {worst.maximum:g} (steps 0 to 0)"
    )
    lines = script(models["committee"], *NVE, "run 4", words="extrapolation warn 2")
    for ranks in (1, 3):
        output = run(tmp_path, lines, ranks, atoms).output
        assert sentence in output
        assert "92 features with training ranges" in output
        assert output.count("extrapolations,") == 3 and "(steps 1 to 2)" in output


def test_no_extrapolations_on_the_training_set(models: dict[str, Path], tmp_path: Path) -> None:
    for precision in ("double", "mixed"):
        words = f"precision {precision} extrapolation warn 1 extrapolation stop 0"
        lines = script(models["committee"], "run 0", words=words)
        output = run(tmp_path, lines, 2, grid((4, 4, 4), seed=9)).output
        assert "extrapolations," not in output and thermo(output)[-1, 9] == 0


@pytest.mark.parametrize("ranks", [1, 4])
def test_too_many_extrapolations(models: dict[str, Path], tmp_path: Path, ranks: int) -> None:
    atoms = grid((3, 3, 3), spacing=1.9)
    write_data(tmp_path / "data.0", atoms, ["O", "H"])
    lines = script(models["committee"], *NVE, "run 100", words="extrapolation stop 2000")
    done = run_script(tmp_path, lines, ranks)
    text = " ".join(done.output.split())
    assert done.code != 0
    assert "extrapolations in this run at step" in text
    assert "and 'extrapolation stop' allows 2000; " in text and "outside of their training ranges" in text


def test_the_log_names_the_committee(models: dict[str, Path], tmp_path: Path) -> None:
    output = run(tmp_path, script(models["committee"], "run 0", words="deviation 1")).output
    assert output.count("committee of 3 members: their mean drives") == 1


def test_file_that_cannot_be_written(models: dict[str, Path], tmp_path: Path) -> None:
    write_data(tmp_path / "data.0", ATOMS, ["O", "H"])
    lines = script(models["committee"], "run 0", words="deviation 1 file none/dev.out")
    done = run_script(tmp_path, lines, 2)
    assert done.code != 0
    assert "pair_style mlp: cannot write none/dev.out: No such file or directory" in done.output


def test_fix_pair_on_a_single_model(models: dict[str, Path], tmp_path: Path) -> None:
    write_data(tmp_path / "data.0", ATOMS, ["O", "H"])
    lines = [line for line in script(models["bpnn"], words="") if "extra" not in line]
    done = run_script(tmp_path, [*lines, "fix d all pair 1 mlp deviation 1", "run 0"])
    assert done.code != 0
    assert "deviation needs a committee, and" in " ".join(done.output.split())


def test_the_example_of_the_documentation(models: dict[str, Path], tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "uncertainty.md").read_text()
    example = text[text.index("    pair_style mlp deviation") : text.index("- `deviation N`")]
    example = example.replace("committee.pt", str(models["committee"])).replace("> 0.5", "> 1e6")
    lines = script(models["committee"], words="")[:5] + [line.strip() for line in example.splitlines()]
    run(tmp_path, [*lines, *NVE, "run 100"], 2)
    assert len((tmp_path / "model_devi.out").read_text().splitlines()) == 12
    assert (tmp_path / "dump.lammpstrj").read_text().count("ITEM: TIMESTEP") == 2
