"""A model file as a plain Python object: positions in, energy, forces and virial out."""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nearsight.data.frame import Frame, charges_given
from nearsight.errors import EvaluationError
from nearsight.export.elements import element_symbol
from nearsight.lib import _core
from nearsight.molecules import read_molecules
from nearsight.uncertainty import Deviation, forces_std

# Atoms that are evaluated together: on a GPU, which more would hardly fill better; for each thread of a CPU;
# likewise of models that see a batch at once, so that all of it lies in the cache between layers.
_OF_GPU, _OF_THREAD, _OF_THREAD_AT_ONCE = 32768, 1024, 128
_BY_ATOM = ("energies", "forces", "virials")  # results with a row for each atom
_SYMMETRIC = np.array([[0, 3, 4], [3, 1, 5], [4, 5, 2]])  # places in xx, yy, zz, xy, xz, yz


@dataclass(frozen=True)
class Extrapolation:
    """A feature that left its range in the training set at some atoms of a structure."""

    species: str  # of the atoms
    label: str
    count: int  # atoms
    lowest: float  # value met, or `minimum` if none lies below
    highest: float
    minimum: float  # in the training set
    maximum: float

    @property
    def value(self) -> float:
        """The value that lies farthest outside."""
        return self.lowest if self.minimum - self.lowest > self.highest - self.maximum else self.highest

    @property
    def beyond(self) -> float:
        """How far it lies outside, in widths of the range; infinite where the range is one value."""
        distance = max(self.minimum - self.lowest, self.highest - self.maximum)
        width = self.maximum - self.minimum
        return distance / width if width else math.inf


@dataclass(frozen=True)
class Results:
    """What a model says about one structure of n atoms, or M members of a committee about it. eV and Å."""

    energy: float  # with reference energies
    energies: np.ndarray  # (n,) energy per atom
    forces: np.ndarray  # (n, 3) -dE/dr
    virial: np.ndarray  # (3, 3) -dE/dstrain, symmetric; stress = -virial / volume in ASE's sign
    # (n, 6) virial per atom in the order xx, yy, zz, xy, xz, yz; not of models with electrostatics, of which
    # the mesh knows only the sum
    virials: np.ndarray | None = None
    # Of models with electrostatics, C charges per atom.
    electrostatic_energy: float | None = None  # part of the energy
    charges: np.ndarray | None = None  # (n, C) e
    potentials: np.ndarray | None = None  # (n, C) dE/d(charge), V
    equilibration_steps: int | None = None  # of conjugate gradients; 0 of charges that do not equilibrate
    # s of PME without its set-up: total, and of it pairs, charges (to the mesh and back), transforms
    electrostatic_seconds: dict[str, float] | None = None
    dipole: np.ndarray | None = None  # (3,) Σ q_i r_i of the first charge, e·Å; not of periodic systems
    dispersion_energy: float | None = None  # part of the energy, of models with dispersion
    member_energies: np.ndarray | None = None  # (M,) of a committee
    # If asked for.
    born_charges: np.ndarray | None = None  # (n, 3, 3) d(dipole)_a/dr_b, e
    member_forces: np.ndarray | None = None  # (M, n, 3)
    member_virials: np.ndarray | None = None  # (M, 6)
    extrapolations: list[Extrapolation] | None = None

    @property
    def energy_std(self) -> float:
        """Population standard deviation of the members' energies, eV."""
        return float(self.member_energies.std())

    @property
    def forces_std(self) -> np.ndarray:
        """Deviation of the members' forces of each atom, (n,) eV/Å: see `nearsight.uncertainty`."""
        return forces_std(self.member_forces)

    @property
    def deviation(self) -> Deviation:
        """Deviation of the members' forces and virials: see `nearsight.uncertainty`."""
        return Deviation.of(self.member_forces, self.member_virials)


class Potential:
    """A model file, ready to be evaluated in this process.

    Args:
        path: the model file.
        backend: "native", "torchscript", or "auto" (native where the core knows the architecture).
        precision: "double", or "mixed" (features in single precision, sums over atoms in double).
        threads: threads of the core, at least 1.
        skin: Verlet skin, Å: the neighbor list is kept until an atom has moved half of it; 0: never kept.
        device: "cpu", or an NVIDIA GPU, "cuda" or "cuda:1".

    Raises:
        ModelFileError: the file is missing, damaged, foreign or too new.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        backend: str = "auto",
        precision: str = "double",
        threads: int = 1,
        skin: float = 0.0,
        device: str = "cpu",
    ):
        self._arguments = (os.path.abspath(path), backend, precision, threads, skin, device)
        self._evaluator = _core.Evaluator(*self._arguments)
        self._index = {symbol: index for index, symbol in enumerate(self._evaluator.species)}

    def __reduce__(self) -> tuple[Any, ...]:
        return Potential, self._arguments

    @property
    def path(self) -> str:
        """The model file, an absolute path."""
        return self._arguments[0]

    @property
    def species(self) -> list[str]:
        """Chemical symbols that the model knows; the index is the species number."""
        return list(self._evaluator.species)

    @property
    def cutoff(self) -> float:
        """Cutoff radius, Å."""
        return self._evaluator.cutoff

    @property
    def num_charges(self) -> int:
        """Charges of each atom; 0 for a model without electrostatics."""
        return self._evaluator.num_charges

    @property
    def metadata(self) -> dict[str, Any]:
        """nearsight.json of the model file, see docs/file_format.md."""
        return json.loads(self._evaluator.metadata)

    @property
    def num_members(self) -> int:
        """Members of a committee; 1 for a model that is none."""
        return self._evaluator.num_members

    @property
    def backend(self) -> str:
        """What "auto" came to: "native" or "torchscript"."""
        return self._evaluator.backend

    def species_indices(self, atoms: Sequence[str] | Sequence[int] | np.ndarray) -> np.ndarray:
        """Species numbers, (n,) int32, of chemical symbols or atomic numbers.

        Raises:
            ConfigError: there is no such atomic number.
            EvaluationError: an element that the model does not know.
        """
        symbols = [element_symbol(atom) for atom in atoms]
        for number, symbol in enumerate(symbols):
            if symbol not in self._index:
                raise EvaluationError(
                    f"atom {number} is {symbol}, which the model {self.path} does not know; "
                    f"it was trained for {', '.join(self.species)}"
                )
        return np.array([self._index[symbol] for symbol in symbols], dtype=np.int32)

    def compute(
        self,
        positions: np.ndarray,
        atoms: Sequence[str] | Sequence[int] | np.ndarray,
        cell: np.ndarray | None = None,
        pbc: bool | Sequence[bool] = False,
        charge: float | None = None,
        efield: Sequence[float] | None = None,
        *,
        molecules: Sequence[int] | np.ndarray | None = None,
        molecule_charges: Sequence[float] | float | None = None,
        born_charges: bool = False,
        members: bool = False,
        extrapolations: bool = False,
    ) -> Results:
        """Energy, forces and virial of one structure.

        Args:
            positions: (n, 3), Å; need not be wrapped into the cell.
            atoms: n chemical symbols or atomic numbers.
            cell: (3, 3), Å, rows are lattice vectors; may be left out where nothing is periodic.
            pbc: periodic or not, for all three directions or each.
            charge: total charge, e, of a model with electrostatics; None: neutral, or what fixed charges add
                up to where nothing is periodic.
            efield: (3,) V/Å, uniform electric field on the charges of such a model, along periodic directions
                on fixed charges only. Their energy -Σ q_i r_i · efield is that of the positions as they are.
            molecules: (n,) whole numbers, the same for the atoms of a molecule, each of which keeps a charge
                of its own: charges flow, or are shared, within a molecule only. Not with `charge`.
            molecule_charges: e, of the molecules in the ascending order of their numbers, or one for all;
                None: 0.
            born_charges: also Born effective charges, of such a model.
            members: also forces and virials of each member of a committee.
            extrapolations: also which features lie outside of their ranges in the training set.

        Raises:
            EvaluationError: shapes that do not belong together, an element that the model does not know, or
                something asked for that the model does not have.
        """
        species = self.species_indices(atoms)
        wanted = {"born_charges": born_charges, "members": members, "extrapolations": extrapolations}
        given = {"molecules": molecules, "molecule_charges": molecule_charges}
        return self.compute_indices(positions, species, cell, pbc, charge, efield, **given, **wanted)

    def compute_frame(self, frame: Frame, **wanted: bool) -> Results:
        """Like `compute`, for a frame as `nearsight.data.read_frames` gives it.

        Models with electrostatics take the total charge, or the molecules and their charges, of `frame.info`.

        Args:
            frame: its labels are not looked at.
            wanted: born_charges, members, extrapolations.

        Raises:
            EvaluationError: as `compute`, with `frame.source` in the sentence.
            DataError: charges in `frame.info` that are none.
        """
        charge, molecules = None, None
        if self.num_charges:
            charge, molecules = charges_given(frame.info, len(frame), frame.source)
        numbers, charges = molecules or (None, None)
        structure = (frame.positions, frame.symbols, frame.cell, frame.pbc, charge)
        try:
            return self.compute(*structure, molecules=numbers, molecule_charges=charges, **wanted)
        except EvaluationError as error:
            raise EvaluationError(f"{frame.source}: {error}") from error

    def compute_batch(
        self,
        frames: Sequence[Frame],
        *,
        members: bool = False,
        extrapolations: bool = False,
        batch_atoms: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> list[Results]:
        """Energy, forces and virial of many structures, the same as `compute_frame` gives one by one.

        Small structures leave threads and GPUs idle, so several are evaluated together; neighbor lists are
        made anew, without skin. One by one are evaluated: models whose energy is more than a sum over atoms
        (electrostatics, an eigenstate, dispersion inside), extrapolations, and structures of more than
        `batch_atoms` atoms.

        Args:
            frames: the structures; their labels are not looked at.
            members: also forces and virials of each member of a committee.
            extrapolations: also which features lie outside of their ranges in the training set.
            batch_atoms: atoms that are evaluated together, at most; memory grows with them. None: 32768 on a
                GPU, on a CPU 1024 for each thread, or 128 of models with several interactions and of the
                torchscript backend, which larger batches make slower.
            progress: is told how many frames are done.

        Raises:
            EvaluationError: as `compute_frame`.
            DataError: likewise.
        """
        wanted = {"members": members, "extrapolations": extrapolations}
        together = self._evaluator.has_batches and not extrapolations
        if batch_atoms is None:
            batch_atoms = self._batch_atoms()
        found: list[Results] = []
        for group in _groups(frames, batch_atoms if together else 0):
            found += self._compute_group(group, wanted)
            if progress is not None:
                progress(len(found))
        return found

    def _batch_atoms(self) -> int:
        *_, threads, _, device = self._arguments
        if device != "cpu":
            return _OF_GPU
        at_once = self._evaluator.num_interactions > 1 or self.backend == "torchscript"
        return threads * (_OF_THREAD_AT_ONCE if at_once else _OF_THREAD)

    def _compute_group(self, group: list[Frame], wanted: dict[str, bool]) -> list[Results]:
        if len(group) > 1:
            try:
                return self._compute_together(group, wanted["members"])
            except EvaluationError:
                pass  # which does not say whose it is
        return [self.compute_frame(frame, **wanted) for frame in group]

    def _compute_together(self, group: list[Frame], members: bool) -> list[Results]:
        symbols = [symbol for frame in group for symbol in frame.symbols]
        ends = np.cumsum([0, *(len(frame) for frame in group)])
        found = self._evaluator.evaluate_batch(
            np.concatenate([frame.positions for frame in group]),
            self.species_indices(symbols),
            ends,
            np.stack([frame.cell for frame in group]),
            np.stack([frame.pbc for frame in group]),
            members=members,
        )
        found["virial"] = found["virial"][:, _SYMMETRIC]
        member_forces = found.pop("member_forces", None)
        atoms = [slice(*pair) for pair in itertools.pairwise(ends)]
        results = []
        for k, own in enumerate(atoms):
            values = {name: array[own if name in _BY_ATOM else k] for name, array in found.items()}
            values["energy"] = float(values["energy"])
            if members:
                values["member_forces"] = member_forces[:, own]
            results.append(Results(**values))
        return results

    def compute_indices(
        self,
        positions: np.ndarray,
        species: np.ndarray,
        cell: np.ndarray | None = None,
        pbc: bool | Sequence[bool] = False,
        charge: float | None = None,
        efield: Sequence[float] | None = None,
        *,
        molecules: Sequence[int] | np.ndarray | None = None,
        molecule_charges: Sequence[float] | float | None = None,
        born_charges: bool = False,
        members: bool = False,
        extrapolations: bool = False,
    ) -> Results:
        """Like `compute`, for species numbers that `species_indices` has found before."""
        positions = np.ascontiguousarray(positions, dtype=np.float64)
        if positions.shape != (len(species), 3):
            raise EvaluationError(
                f"positions have shape {positions.shape}, but {len(species)} atoms need ({len(species)}, 3)"
            )
        cell = np.zeros((3, 3)) if cell is None else np.ascontiguousarray(cell, dtype=np.float64)
        if cell.shape != (3, 3):
            raise EvaluationError(
                f"the cell has shape {cell.shape}, expected (3, 3): its rows are the lattice vectors"
            )
        field = np.zeros(3) if efield is None else np.asarray(efield, dtype=np.float64)
        if field.shape != (3,):
            raise EvaluationError(f"efield has shape {field.shape}, expected three numbers, V/Å")
        periodic = np.ascontiguousarray(np.broadcast_to(pbc, 3), dtype=bool)
        system = (positions, species, cell, periodic, charge)
        given = read_molecules(molecules, molecule_charges, len(species))
        numbers, charges = given or (None, None)
        layers = self._evaluator.num_interactions
        by_fields = born_charges and self._evaluator.has_born_charges and layers > 1 and given is None
        found = self._evaluator.evaluate(
            *system,
            field,
            born_charges=born_charges and not by_fields,
            members=members,
            extrapolations=extrapolations,
            molecules=numbers,
            molecule_charges=charges,
        )
        if by_fields:
            found["born_charges"] = self._born_charges(system, field, found["forces"])
        if self.num_charges > 0 and not periodic.any():
            found["dipole"] = found["charges"][:, 0] @ positions
        if extrapolations:
            found["extrapolations"] = [
                Extrapolation(self.species[kind], *rest) for kind, *rest in found["extrapolations"]
            ]
        return Results(**found)

    def _born_charges(self, system: tuple, field: np.ndarray, forces: np.ndarray) -> np.ndarray:
        """From forces, which are linear in the field: of charges that depend on more than the neighbors."""
        if system[3].any():
            raise EvaluationError(
                "Born effective charges of periodic systems need charges that depend on the neighbors only: "
                f"take a model with one interaction layer, found {self._evaluator.num_interactions}"
            )
        columns = [self._evaluator.evaluate(*system, field + unit)["forces"] - forces for unit in np.eye(3)]
        return np.stack(columns, axis=1)


def _groups(frames: Sequence[Frame], most: int) -> Iterator[list[Frame]]:
    """Frames in their order, as many at a time as have `most` atoms together, and at least one."""
    group: list[Frame] = []
    atoms = 0
    for frame in frames:
        if group and atoms + len(frame) > most:
            yield group
            group, atoms = [], 0
        group.append(frame)
        atoms += len(frame)
    if group:
        yield group
