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


@functools.cache
def load_plugin() -> None:
    """Load the compiled plugin into OpenMM. `create_force` does it; call it before reading a System from XML.

    Raises:
        NearsightError: the plugin was not built, or not for this OpenMM.
    """
    library = Path(nearsight.__file__).parent / "lib" / "libnearsight_openmm.so"
    if not library.exists():
        raise NearsightError(
            "nearsight was installed without its OpenMM plugin, because openmm was not found then; "
            "install nearsight again next to openmm"
        )
    try:
        openmm.Platform.loadPluginLibrary(str(library))
    except openmm.OpenMMException as error:
        raise NearsightError(str(error)) from error


def create_force(
    model: str | os.PathLike[str],
    species: Sequence[str] | app.Topology,
    *,
    particles: Iterable[int] | None = None,
    periodic: bool | None = None,
    precision: str = "mixed",
    backend: str = "auto",
    threads: int = 1,
    skin: float = 0.1,
    charge: float | None = None,
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
        threads: threads of the core, at least 1.
        skin: Verlet skin, nm: the neighbor list is kept until a particle has moved half of it.
        charge: total charge of the particles that the model sees, e, of a model with electrostatics; None:
            neutral, or what fixed charges add up to where nothing is periodic.
        efield: uniform electric field on the charges of such a model, three numbers in V/nm; without a
            box, or with fixed charges.
        force_group: OpenMM force group, 0 to 31.
        name: name of the force.

    Raises:
        ConfigError: arguments that do not belong together, or an element that the model does not know.
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
    force = ET.Element(
        "Force",
        type="NearsightForce",
        version="1",
        name=name,
        forceGroup=str(force_group),
        model=os.path.abspath(model),
        periodic=str(int(periodic)),
        backend=backend,
        precision=precision,
        threads=str(threads),
        skin=repr(float(skin)),
    )
    if charge is not None:
        force.set("charge", repr(float(charge)))
    if efield is not None:
        if np.shape(efield) != (3,):
            raise ConfigError(f"efield is {efield}, expected three numbers, the electric field in V/nm")
        for axis, value in zip("XYZ", efield):
            force.set(f"efield{axis}", repr(float(value)))
    _add_particles(force, symbols, indices)
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
