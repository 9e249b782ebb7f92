"""A model as an OpenMM force, computed by the compiled plugin on any platform.

The plugin needs no generated wrapper: OpenMM loads the library, and the force is made from its XML form.
"""

from __future__ import annotations

import functools
import os
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import openmm
from openmm import app

import nearsight
from nearsight.errors import ConfigError, NearsightError
from nearsight.export import read_metadata
from nearsight.molecules import Molecules, read_molecules


@functools.cache
def load_plugin() -> None:
    """Load the compiled plugin into OpenMM. `create_force` does it; call it before reading a System from XML.

    Raises:
        NearsightError: the plugin was not built, or not for this OpenMM.
    """
    folder = Path(nearsight.__file__).parent / "lib"
    library = folder / "libnearsight_openmm.so"
    if not library.exists():
        raise NearsightError(
            "nearsight was installed without its OpenMM plugin, because openmm was not found then; "
            "install nearsight again next to openmm"
        )
    try:
        openmm.Platform.loadPluginLibrary(str(library))
        cuda = folder / "libnearsight_openmm_cuda.so"
        if cuda.exists() and "CUDA" in _platforms():  # whose library it needs
            openmm.Platform.loadPluginLibrary(str(cuda))
    except openmm.OpenMMException as error:
        raise NearsightError(str(error)) from error


def _platforms() -> set[str]:
    return {openmm.Platform.getPlatform(k).getName() for k in range(openmm.Platform.getNumPlatforms())}


def create_force(
    model: str | os.PathLike[str],
    species: Sequence[str] | app.Topology,
    *,
    particles: Iterable[int] | None = None,
    periodic: bool | None = None,
    precision: str = "mixed",
    backend: str = "auto",
    device: str = "cpu",
    threads: int = 1,
    skin: float = 0.1,
    charge: float | None = None,
    molecules: bool | Sequence[int] = False,
    molecule_charges: Sequence[float] | float | None = None,
    efield: Sequence[float] | None = None,
    force_group: int = 0,
    name: str = "NearsightForce",
) -> openmm.Force:
    """An OpenMM force for `system.addForce`.

    Args:
        model: the model file; the force keeps its absolute path, and each Context reads it.
        species: a Topology, or one chemical symbol per particle that the model sees.
        particles: indices of the particles that the model sees, in the order of the symbols; None: all.
        periodic: whether the Context's box applies; None: whether the Topology has a box.
        precision: "mixed" (features in single precision, sums over atoms in double) or "double".
        backend: "native", "torchscript", or "auto" (native where the core knows the architecture).
        device: "cpu", or an NVIDIA GPU, "cuda" or "cuda:1"; on the CUDA platform "cuda" is the GPU of the
            Context.
        threads: threads of the core, at least 1.
        skin: Verlet skin, nm: the neighbor list is kept until a particle has moved half of it.
        charge: total charge of the particles that the model sees, e, of a model with electrostatics; None:
            neutral, or what fixed charges add up to where nothing is periodic.
        molecules: True: what the bonds of the Topology connect, in the order of the first particles, keeps a
            charge of its own; or a whole number for each particle that the model sees, the same for those of
            a molecule. Not with `charge`.
        molecule_charges: e, of the molecules, in the ascending order of their numbers, or one for all; None:
            0.
        efield: uniform electric field on the charges of such a model, three numbers in V/nm; without a
            box, or with fixed charges.
        force_group: OpenMM force group, 0 to 31.
        name: name of the force.

    Raises:
        ConfigError: arguments that do not belong together, or an element that the model does not know.
        EvaluationError: molecules and their charges do not belong together.
        ModelFileError: the file is missing, damaged, foreign or too new.
        NearsightError: the plugin was not built, or not for this OpenMM.
        openmm.OpenMMException: an option that the force refuses; when a Context is made, a particle that the
            System does not have, or a file that changed in between.
    """
    load_plugin()
    known = read_metadata(model)["species"]
    indices = None if particles is None else [int(index) for index in particles]
    if indices == []:
        raise ConfigError("particles is empty; name at least one, or leave it out to use all")
    if isinstance(species, app.Topology):
        periodic = species.getPeriodicBoxVectors() is not None if periodic is None else periodic
        symbols = _topology_symbols(species, indices)
    else:
        symbols = [str(symbol) for symbol in species]
    unknown = sorted(set(symbols) - set(known))
    if unknown:
        raise ConfigError(
            f"{model}: the model knows the species {', '.join(known)}, found {', '.join(unknown)}"
        )
    if periodic is None:
        raise ConfigError(
            "periodic can be left out only with a Topology; say periodic=True or periodic=False"
        )
    numbers = None if molecules is False else molecules
    if molecules is True:
        numbers = _bonded_molecules(species, indices)
    kept = read_molecules(numbers, molecule_charges, len(symbols))
    if kept and charge is not None:
        raise ConfigError("a total charge and molecules were given, which have charges: leave one out")
    force = ET.Element(
        "Force",
        type="NearsightForce",
        version="2" if kept else "1",
        name=name,
        forceGroup=str(force_group),
        model=os.path.abspath(model),
        periodic=str(int(periodic)),
        backend=backend,
        precision=precision,
        threads=str(threads),
        skin=repr(float(skin)),
    )
    if device != "cpu":
        force.set("device", device)
    if charge is not None:
        force.set("charge", repr(float(charge)))
    if efield is not None:
        if np.shape(efield) != (3,):
            raise ConfigError(f"efield is {efield}, expected three numbers, the electric field in V/nm")
        for axis, value in zip("XYZ", efield):
            force.set(f"efield{axis}", repr(float(value)))
    _add_particles(force, symbols, indices)
    if kept:
        _add_molecules(force, kept)
    return openmm.XmlSerializer.deserialize(ET.tostring(force, encoding="unicode"))


def _topology_symbols(topology: app.Topology, indices: list[int] | None) -> list[str]:
    atoms = list(topology.atoms())
    wanted = range(len(atoms)) if indices is None else indices
    for index in wanted:
        if not 0 <= index < len(atoms):
            raise ConfigError(
                f"particle {index} is out of range; the Topology has {len(atoms)} atoms, counted from 0"
            )
        if atoms[index].element is None:
            raise ConfigError(
                f"atom {index} ({atoms[index].name}) of the Topology has no element; "
                "leave it out of particles or give it one"
            )
    return [atoms[index].element.symbol for index in wanted]


def _bonded_molecules(topology: app.Topology | Sequence[str], indices: list[int] | None) -> list[int]:
    """The number of the molecule of each atom, or of those of the indices: its first atom in the Topology."""
    if not isinstance(topology, app.Topology) or topology.getNumBonds() == 0:
        raise ConfigError(
            "molecules=True takes molecules from the bonds of a Topology, found none: give a number for each "
            "particle instead"
        )
    first = list(range(topology.getNumAtoms()))

    def root(atom: int) -> int:
        while first[atom] != atom:
            first[atom] = first[first[atom]]
            atom = first[atom]
        return atom

    for one, other in topology.bonds():
        low, high = sorted((root(one.index), root(other.index)))
        first[high] = low
    return [root(atom) for atom in (range(len(first)) if indices is None else indices)]


def _add_molecules(force: ET.Element, molecules: Molecules) -> None:
    for entry, number in zip(force.find("Particles"), molecules.numbers):
        entry.set("molecule", str(number))
    entries = ET.SubElement(force, "Molecules")
    for charge in molecules.charges:
        ET.SubElement(entries, "Molecule", charge=repr(float(charge)))


def _add_particles(force: ET.Element, symbols: list[str], indices: list[int] | None) -> None:
    if indices is not None and len(indices) != len(symbols):
        raise ConfigError(
            f"{len(indices)} particles but {len(symbols)} species; give one species per particle"
        )
    entries = ET.SubElement(force, "Particles")
    for k, symbol in enumerate(symbols):
        entry = ET.SubElement(entries, "Particle", species=symbol)
        if indices is not None:
            entry.set("index", str(indices[k]))
