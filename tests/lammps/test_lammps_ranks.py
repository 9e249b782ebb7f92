"""The same numbers from 1, 2, 3 and 4 ranks, from Python and from the C program, in double precision."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from lammps_harness import Case, Result, run_cases
from lammps_systems import cluster_in_a_corner, grid, lone_atoms, orthogonal

import nearsight
from nearsight.lib import _core

RELATIVE = 1e-10
ENERGY = 1e-9  # eV; relative to the reference energies of thousands of eV it would mean nothing
TILED = {"after_read": ("comm_style tiled",), "run": ("run 0", "balance 1.0 rcb", "run 0")}


def mlp(model: Path, words: str = "precision double", elements: str = "O H") -> tuple[str, str]:
    return f"pair_style mlp {words}", f"pair_coeff * * {model} {elements}"


def make_cases(models: dict[str, Path]) -> dict[str, tuple[str, Case]]:
    """Case name -> (model, case)."""
    triclinic, small = grid((5, 4, 4)), grid((2, 1, 2), spacing=2.9)
    systems: dict[str, tuple[str, Atoms, dict]] = {
        "triclinic": ("many_body", triclinic, {}),
        "box shorter than the cutoff": ("many_body", small, {}),
        "empty ranks": ("many_body", cluster_in_a_corner(), {}),
        "lone atoms": ("many_body", lone_atoms(), {}),
        "mixed periodicity": ("many_body", orthogonal((4, 3, 4), pbc=(True, False, True)), {}),
        "shrink-wrapped slab": (
            "many_body",
            orthogonal((4, 3, 4), pbc=(True, True, False)),
            {"boundary": "p p s"},
        ),
        "tiled": ("many_body", orthogonal((6, 4, 4)), TILED),
        "messages, triclinic": ("messages", triclinic, {}),
        "messages, box shorter than the cutoff": ("messages", small, {}),
        "messages, empty ranks": ("messages", cluster_in_a_corner(), {}),
        "messages, tiled": ("messages", orthogonal((7, 7, 7)), TILED),
        "messages, mace": ("mace2", triclinic, {}),
        "two states, triclinic": ("two_states", triclinic, {}),
        "two states, empty ranks": ("two_states", cluster_in_a_corner(), {}),
        "native, triclinic": ("bpnn", triclinic, {}),
        "native, box shorter than the cutoff": ("bpnn", small, {}),
        "native, empty ranks": ("bpnn", cluster_in_a_corner(), {}),
        "native, tiled": ("bpnn", orthogonal((6, 4, 4)), TILED),
        "native, mace with 3, messages with ghosts": ("mace3", triclinic, {}),
    }
    for layers in (2, 3):
        for model, name in (("painn", "messages, painn"), ("mace", "native, mace")):
            systems |= {
                f"{name} with {layers}": (f"{model}{layers}", triclinic, {}),
                f"{name} with {layers}, box shorter than the cutoff": (f"{model}{layers}", small, {}),
                f"{name} with {layers}, empty ranks": (f"{model}{layers}", cluster_in_a_corner(), {}),
                f"{name} with {layers}, tiled": (f"{model}{layers}", orthogonal((7, 7, 7)), TILED),
            }
    words = {
        "messages, mace": "precision double backend torchscript",
        "native, mace with 3, messages with ghosts": "precision double messages halo",
    }
    return {
        name: (model, Case(atoms, mlp(models[model], words.get(name, "precision double")), **more))
        for name, (model, atoms, more) in systems.items()
    }


MODELS = ("bpnn", "many_body", "messages", "painn2", "painn3", "mace2", "mace3", "two_states")
NAMES = list(make_cases(dict.fromkeys(MODELS, Path())))


@pytest.fixture(scope="module")
def results(
    models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], dict[str, Result]]:
    """Results of all cases on so many ranks; each rank count runs once."""
    done: dict[int, dict[str, Result]] = {}

    def get(ranks: int) -> dict[str, Result]:
        if ranks not in done:
            cases = {name: case for name, (_, case) in make_cases(models).items()}
            found = run_cases(tmp_path_factory.mktemp(f"ranks{ranks}"), list(cases.values()), ranks)
            done[ranks] = dict(zip(cases, found))
        return done[ranks]

    return get


def close(a: np.ndarray | float, b: np.ndarray | float) -> None:
    """Differences within RELATIVE of the largest value."""
    np.testing.assert_allclose(a, b, rtol=0, atol=RELATIVE * max(np.abs(a).max(), 1e-3))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_rank_counts_agree(results: Callable[[int], dict[str, Result]], name: str, ranks: int) -> None:
    one, many = results(1)[name], results(ranks)[name]
    assert abs(one.energy - many.energy) < ENERGY
    close(one.forces, many.forces)
    close(one.virial, many.virial)
    close(one.energies, many.energies)
    close(one.stresses, many.stresses)


@pytest.mark.parametrize("name", NAMES)
def test_lammps_agrees_with_python(
    results: Callable[[int], dict[str, Result]], models: dict[str, Path], name: str
) -> None:
    model, case = make_cases(models)[name]
    evaluator = _core.Evaluator(str(models[model]), precision="double")
    species = np.array(
        [evaluator.species.index(s) for s in case.atoms.get_chemical_symbols()], dtype=np.int32
    )
    atoms = case.atoms
    expected = evaluator.evaluate(atoms.positions, species, atoms.cell.array, atoms.pbc.tolist())
    found = results(1)[name]
    assert abs(expected["energy"] - found.energy) < ENERGY
    close(expected["forces"], found.forces)
    close(expected["energies"], found.energies)
    close(-expected["virials"], found.stresses)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_atoms_add_up_to_the_whole(
    results: Callable[[int], dict[str, Result]], name: str, ranks: int
) -> None:
    found = results(ranks)[name]
    close(found.energy, found.energies.sum())
    close(found.virial, -found.stresses.sum(0))
    np.testing.assert_allclose(found.forces.sum(0), 0, atol=1e-10)


def test_cases_are_what_they_say(results: Callable[[int], dict[str, Result]]) -> None:
    for name, result in results(4).items():
        fewest = int(re.findall(r"Nlocal: .* (\d+) min", result.log)[-1])
        assert (fewest == 0) == ("empty" in name or name == "lone atoms"), name
        assert ("rebalancing time" in result.log) == ("tiled" in name), name
        assert ("full/bin/ghost" in result.log) == ("messages" in name), name
        assert ("backend native" in result.log) == ("native" in name), name


@pytest.mark.parametrize(
    "name", ["triclinic", "native, triclinic", "messages, empty ranks", "mixed periodicity"]
)
def test_c_program_agrees(
    results: Callable[[int], dict[str, Result]], models: dict[str, Path], name: str, tmp_path: Path
) -> None:
    model, case = make_cases(models)[name]
    symbols = case.atoms.get_chemical_symbols()
    rows = [f"{s} {x!r} {y!r} {z!r}" for s, (x, y, z) in zip(symbols, case.atoms.positions.tolist())]
    lattice = " ".join(map(repr, case.atoms.cell.array.ravel().tolist()))
    pbc = " ".join("FT"[int(p)] for p in case.atoms.pbc)
    (tmp_path / "frame.xyz").write_text(
        "\n".join([str(len(rows)), f'Lattice="{lattice}" pbc="{pbc}"', *rows, ""])
    )
    program = Path(nearsight.__file__).parent / "lib" / "nearsight-energy-forces"
    command = [program, models[model], tmp_path / "frame.xyz", "double"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    energy, *forces = done.stdout.splitlines()
    close(results(1)[name].energy, float(energy))
    close(results(1)[name].forces, np.loadtxt(forces))
