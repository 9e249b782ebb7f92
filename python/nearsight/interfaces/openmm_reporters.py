"""What a model knows beyond energy and forces, for the States of an OpenMM simulation, and reporters of it.

OpenMM's forces give energy and forces alone: the model of the System's NearsightForce is evaluated once more
on the positions of a State.
"""

from __future__ import annotations

import csv
import io
import os
import xml.etree.ElementTree as ET
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, TextIO

import numpy as np
import openmm
from openmm import app, unit

from nearsight import uncertainty
from nearsight.errors import ConfigError
from nearsight.interfaces.potential import Extrapolation, Potential, Results
from nearsight.units import NM


class SystemPotential:
    """The model of a System's NearsightForce, with its particles, backend, precision, device and threads.

    Args:
        system: the System.
        name: of the force, if the System has several of them.

    Raises:
        ConfigError: there is no such force, or more than one.
        ModelFileError: its model file is missing or damaged.
    """

    def __init__(self, system: openmm.System, name: str | None = None):
        force = _find_force(system, name)
        entries = force.findall("Particles/Particle")
        self._particles = np.array([int(e.get("index", number)) for number, e in enumerate(entries)])
        self._periodic = force.get("periodic") == "1"
        self._charge = None if force.get("charge") is None else float(force.get("charge"))
        self._molecules: dict[str, Any] = {}
        if force.find("Molecules") is not None:
            charges = [float(entry.get("charge")) for entry in force.findall("Molecules/Molecule")]
            numbers = np.array([int(entry.get("molecule")) for entry in entries])
            self._molecules = {"molecules": numbers, "molecule_charges": charges}
        field = [force.get(f"efield{axis}") for axis in "XYZ"]
        self._efield = None if field[0] is None else np.array(field, dtype=float) / NM
        self.potential = Potential(
            force.get("model"),
            backend=force.get("backend"),
            precision=force.get("precision"),
            device=force.get("device", "cpu"),
            threads=int(force.get("threads")),
            skin=float(force.get("skin")) * NM,
        )
        self._species = self.potential.species_indices([e.get("species") for e in entries])

    def compute(self, state: openmm.State, *, members: bool = False, extrapolations: bool = False) -> Results:
        """What the model says about a State, in eV and Å; see `nearsight.Potential.compute`."""
        positions = state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)
        cell = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.angstrom)
        return self.potential.compute_indices(
            positions[self._particles],
            self._species,
            cell,
            self._periodic,
            self._charge,
            self._efield,
            **self._molecules,
            members=members,
            extrapolations=extrapolations,
        )


def _find_force(system: openmm.System, name: str | None) -> ET.Element:
    """The XML form of the System's NearsightForce."""
    plugins = [force for force in system.getForces() if type(force) is openmm.Force]  # no class of their own
    elements = [ET.fromstring(openmm.XmlSerializer.serialize(force)) for force in plugins]
    found = [e for e in elements if e.get("type") == "NearsightForce" and name in (None, e.get("name"))]
    if len(found) != 1:
        called = f" named {name!r}" if name else ""
        advice = "name one of them" if found else "add one with create_force"
        raise ConfigError(f"the System has {len(found)} NearsightForces{called}, expected one: {advice}")
    return found[0]


class _Reporter(ABC):
    """Finds the model at the first report: a reporter is not told the System before."""

    HEADER: str

    def __init__(
        self,
        file: str | os.PathLike[str] | TextIO,
        interval: int,
        append: bool = False,
        force_name: str | None = None,
    ):
        if interval < 1:
            raise ConfigError(f"the report interval must be at least 1 step, found {interval}")
        self._file, self._interval, self._append = file, interval, append
        self._force_name = force_name
        self._model: SystemPotential | None = None

    def describeNextReport(self, simulation: app.Simulation) -> dict[str, Any]:
        """What OpenMM asks a reporter: steps until the next report and what the State must hold."""
        steps = self._interval - simulation.currentStep % self._interval
        return {"steps": steps, "periodic": None, "include": ["positions"]}

    def report(self, simulation: app.Simulation, state: openmm.State) -> None:
        """Write the line of one State.

        Raises:
            ConfigError: the System has no NearsightForce, or several.
            EvaluationError: the model cannot tell what is asked for.
        """
        text = ""
        if self._model is None:
            self._model = SystemPotential(simulation.system, self._force_name)
            text = "" if self._append else self.HEADER + "\n"
        text += self._row(simulation.currentStep, self._model, state) + "\n"
        if hasattr(self._file, "write"):
            self._file.write(text)
            return
        with open(self._file, "a" if self._append else "w") as file:
            file.write(text)
        self._append = True

    @abstractmethod
    def _row(self, step: int, model: SystemPotential, state: openmm.State) -> str:
        """Return the line of one State."""


class DeviationReporter(_Reporter):
    """Writes how far a committee's members disagree, in the columns of DeePMD-kit's model_devi.out.

    Forces in eV/Å, virials per atom in eV: docs/uncertainty.md.

    Args:
        file: path or open file.
        interval: steps between reports.
        append: go on in an existing file.
        force_name: name of the NearsightForce, if the System has several.
    """

    HEADER = uncertainty.FILE_HEADER

    def _row(self, step: int, model: SystemPotential, state: openmm.State) -> str:
        return model.compute(state, members=True).deviation.file_row(step)


class ExtrapolationReporter(_Reporter):
    """Writes how many features lie outside of their ranges in the training set, and the farthest, as CSV.

    Arguments are those of DeviationReporter.
    """

    HEADER = "step,extrapolations,features,species,farthest,value,minimum,maximum"

    def _row(self, step: int, model: SystemPotential, state: openmm.State) -> str:
        found = model.compute(state, extrapolations=True).extrapolations
        row = [step, sum(e.count for e in found), len(found), *_farthest(found)]
        text = io.StringIO()
        csv.writer(text, lineterminator="").writerow(row)
        return text.getvalue()


def _farthest(found: Sequence[Extrapolation]) -> list[Any]:
    if not found:
        return [""] * 5
    worst = max(found, key=lambda extrapolation: extrapolation.beyond)
    return [worst.species, worst.label, worst.value, worst.minimum, worst.maximum]
