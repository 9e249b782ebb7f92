"""Imported models of mace-torch against mace-torch itself, in every host, with absolute tolerances."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from comparison import Numbers
from hosts import of_lammps, of_mace_torch, of_module, of_openmm, of_potential
from systems import systems
from variants import CHEBYSHEV, UNKNOWN, VARIANTS, Variant

from nearsight.importers import mace_extract
from nearsight.importers.imported import Imported
from nearsight.importers.mace_torch import from_numbers, import_mace
from nearsight.interfaces.potential import Potential

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # those of mace-torch and e3nn about torch
    pytest.mark.timeout(1800),  # the first test of a host waits for everything that is computed at once
]

# Precision, how the native engine evaluates radial functions, and what is allowed: eV, eV/Å and eV/Å³.
MODES = {
    "analytic": ("double", "analytic", 1e-9),
    "tables": ("double", "tables", 1e-6),
    "mixed": ("mixed", "tables", 1e-4),
}
NAMES = [variant.name for variant in VARIANTS]


@dataclass(frozen=True)
class Example:
    """A model in mace-torch's file and in ours, and what mace-torch says about the systems."""

    variant: Variant
    imported: Imported
    path: Path
    wanted: dict[str, Numbers]

    @property
    def systems(self):
        return systems(self.variant.numbers)


def make_example(variant: Variant, folder: Path) -> Example:
    theirs = variant.save(folder / "mace.model")
    # As `import_mace` does in another process, which would import torch and mace-torch once more.
    record = mace_extract.main(str(folder / "mace.model"), str(folder))
    with np.load(folder / "arrays.npz") as arrays:
        imported = from_numbers(record, dict(arrays), head=variant.head)
    imported.save(folder / "model.pt")
    everything = systems(variant.numbers).items()
    wanted = {name: of_mace_torch(theirs, atoms, variant.head) for name, atoms in everything}
    return Example(variant, imported, folder / "model.pt", wanted)


@pytest.fixture(scope="session")
def examples(tmp_path_factory) -> dict[str, Example]:
    return {variant.name: make_example(variant, tmp_path_factory.mktemp("model")) for variant in VARIANTS}


@pytest.fixture(params=NAMES)
def example(request, examples) -> Example:
    return examples[request.param]


@pytest.fixture(params=MODES)
def mode(request, monkeypatch) -> str:
    """A mode that holds for this process."""
    monkeypatch.setenv("NEARSIGHT_RADIALS", MODES[request.param][1])
    return request.param


def test_matrix_is_as_large_as_it_should_be(examples):
    sizes = {name: len(atoms) for name, atoms in examples["table"].systems.items()}
    assert len(examples) >= 12
    assert sizes == {"triclinic": 7, "table": 89, "atom": 1, "dimer": 2, "molecule": 11}
    assert len(set(examples["table"].systems["table"].symbols)) == 89
    # Forces of real substances: absolute tolerances mean something.
    largest = [np.abs(wanted.forces).max() for e in examples.values() for wanted in e.wanted.values()]
    assert 0.5 < max(largest) < 15.0


def test_module(example, comparison):
    scripted = Potential(example.path, backend="torchscript")
    for name, atoms in example.systems.items():
        wanted = example.wanted[name]
        comparison.check(of_module(example.imported, atoms), wanted, 1e-9, "torch module", "double")
        comparison.check(of_potential(scripted, atoms), wanted, 1e-9, "torchscript", "double")


def test_python(example, mode, comparison):
    precision, _, tolerance = MODES[mode]
    potential = Potential(example.path, backend="native", precision=precision)
    for name, atoms in example.systems.items():
        comparison.check(of_potential(potential, atoms), example.wanted[name], tolerance, "Python", mode)


@pytest.fixture(scope="session")
def in_lammps(examples, tmp_path_factory):
    """Numbers of (variant, system) from so many ranks; one start for each rank count and mode."""
    done: dict[tuple[int, str], dict[tuple[str, str], Numbers]] = {}

    def get(ranks: int, mode: str) -> dict[tuple[str, str], Numbers]:
        if (ranks, mode) not in done:
            jobs = {
                (example.variant.name, name): (
                    example.path,
                    example.imported.model.species,
                    atoms,
                    MODES[mode][0],
                )
                for example in examples.values()
                for name, atoms in example.systems.items()
            }
            found = of_lammps(tmp_path_factory.mktemp("lammps"), list(jobs.values()), ranks)
            done[ranks, mode] = dict(zip(jobs, found))
        return done[ranks, mode]

    return get


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_lammps(example, mode, ranks, in_lammps, comparison):
    for name, wanted in example.wanted.items():
        found = in_lammps(ranks, mode)[example.variant.name, name]
        comparison.check(found, wanted, MODES[mode][2], f"LAMMPS, {ranks} ranks", mode)


def test_openmm(example, mode, comparison):
    precision, _, tolerance = MODES[mode]
    for name, atoms in example.systems.items():
        found = of_openmm(example.path, atoms, precision)
        comparison.check(found, example.wanted[name], tolerance, "OpenMM", mode)


def test_chebyshev_forces_are_differences_of_energies(tmp_path):
    """torch calls chebyshev_polynomial_t not differentiable, so that mace-torch's own forces lack a part."""
    theirs = CHEBYSHEV.save(tmp_path / "mace.model")
    imported = import_mace(tmp_path / "mace.model")
    assert "Chebyshev" in imported.notes[0]
    for atoms in systems(CHEBYSHEV.numbers).values():
        energy = of_mace_torch(theirs, atoms, None).energy
        assert of_module(imported, atoms).energy == pytest.approx(energy, rel=1e-11, abs=1e-9)
    atoms, step = systems(CHEBYSHEV.numbers)["molecule"], 1e-4
    forces = of_module(imported, atoms).forces
    for atom, axis in ((0, 0), (4, 1), (7, 2)):
        ends = [atoms.copy(), atoms.copy()]
        ends[0].positions[atom, axis] += step
        ends[1].positions[atom, axis] -= step
        plus, minus = (of_mace_torch(theirs, end, None).energy for end in ends)
        assert forces[atom, axis] == pytest.approx((minus - plus) / (2 * step), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("variant", UNKNOWN, ids=lambda variant: variant.name)
def test_what_is_not_known_is_named(variant):
    with pytest.raises(mace_extract.Unknown, match=UNKNOWN[variant]):
        mace_extract.read(variant.build())


def test_element_and_precision_of_the_output(tmp_path, comparison):
    """A file of single precision through the command's own function, some of its elements."""
    variant = next(v for v in VARIANTS if v.name == "single")
    theirs = variant.save(tmp_path / "mace.model")
    imported = import_mace(tmp_path / "mace.model", species=["O", "C"])
    assert imported.model.species == ["C", "O"]
    assert imported.provenance["dtype"] == "float32"
    atoms = systems((6, 8))["triclinic"]
    wanted = of_mace_torch(theirs, atoms, None)
    comparison.check(of_module(imported, atoms), wanted, 1e-9, "torch module", "double")
