"""ASE calculator over the C++ core."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator as AseCalculator
from ase.calculators.calculator import PropertyNotImplementedError, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from nearsight import keys
from nearsight.data.frame import charges_given
from nearsight.errors import EvaluationError
from nearsight.interfaces.potential import Potential, Results

_VOIGT = [0, 1, 2, 5, 4, 3]  # ASE's xx, yy, zz, yz, xz, xy out of xx, yy, zz, xy, xz, yz
_STRESSES = ("stress", "stresses")
_ENERGIES = ("energy_std", "member_energies")  # of a committee
_FORCES = ("forces_std", "member_forces")
_EXTRAPOLATIONS = "extrapolations"
_CHARGES = ("charges", "potentials")  # of models with electrostatics
_DIPOLE, _BORN = "dipole", "born_effective_charges"  # likewise, under ASE's names


class Calculator(AseCalculator):
    """ASE calculator of a model file: `atoms.calc = Calculator("model.pt")`.

    Units, signs and Voigt order are ASE's: eV, Å, stress = dE/dstrain / volume. `stresses` add up to
    `stress`; both exist only where all three directions are periodic. It can be copied and pickled.

    A model with electrostatics gives `charges` in e and `potentials` = dE/d(charge) in V, (n,) or (n, C) for
    C charges per atom, without periodic directions `dipole` in e·Å, and no `stresses`, since the mesh knows
    only the sum. `get_born_charges(atoms)` gives Born effective charges.

    A committee gives `energy_std` and `member_energies` (M,) with every energy. More is computed when
    `calc.get_property(name, atoms)` asks for it: of a committee `forces_std` (n,) and `member_forces`
    (M, n, 3); of models that know the ranges of their features in the training set `extrapolations`, a list.

    Args:
        path, backend, precision, threads, device: as in `nearsight.Potential`.
        skin: Verlet skin, Å, for moving atoms; costs little otherwise.
        charge: total charge, e, of a model with electrostatics; None: `total_charge` or `charge` of
            `atoms.info`, if it is there.
        efield: uniform electric field, three numbers in V/Å, on the charges of such a model; along periodic
            directions on fixed charges only.
        molecules: of such a model, molecules that keep charges of their own: a whole number for each atom,
            the same for those of a molecule, or the name of an array of the atoms that has them. None:
            `molecules` of `atoms.arrays`, if `atoms.info` has `molecule_charges`.
        molecule_charges: e, of the molecules in the ascending order of their numbers, or one for all; None:
            0.

    Raises:
        ModelFileError: the file is missing, damaged, foreign or too new.
    """

    implemented_properties = (
        *("energy", "free_energy", "energies", "forces"),
        *_STRESSES,
        *_ENERGIES,
        *_FORCES,
        _EXTRAPOLATIONS,
        *_CHARGES,
        _DIPOLE,
        _BORN,
    )

    def __init__(
        self,
        path: str | os.PathLike[str],
        backend: str = "auto",
        precision: str = "double",
        threads: int = 1,
        skin: float = 1.0,
        charge: float | None = None,
        efield: Sequence[float] | None = None,
        molecules: Sequence[int] | str | None = None,
        molecule_charges: Sequence[float] | float | None = None,
        device: str = "cpu",
    ):
        super().__init__()  # ASE's base class takes any further keyword and forgets it
        self.potential = Potential(
            path, backend=backend, precision=precision, threads=threads, skin=skin, device=device
        )
        self._charge, self._efield = charge, efield
        self._molecules, self._molecule_charges = molecules, molecule_charges
        self._numbers = np.zeros(0, dtype=int)
        self._species = np.zeros(0, dtype=np.int32)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Compute all of ASE's properties at once, since forces cost little beyond the energy.

        Raises:
            EvaluationError: an element that the model does not know; members or extrapolations of a model
                that has none; molecules that cannot be.
            PropertyNotImplementedError: stress was asked for without three periodic directions, or a dipole
                with one.
        """
        super().calculate(atoms, properties, system_changes)
        if self.potential.num_charges > 0 and "stresses" in (properties or ()):
            raise PropertyNotImplementedError(
                "stresses of atoms are not defined for the electrostatics of this model, of which the mesh "
                "knows only the sum: ask for stress"
            )
        periodic = self.atoms.cell.rank == 3 and self.atoms.pbc.all()
        if not periodic and any(name in _STRESSES for name in properties or ()):
            raise PropertyNotImplementedError(
                f"stress needs three periodic directions and a cell, found pbc = {self.atoms.pbc.tolist()}"
            )
        if _DIPOLE in (properties or ()) and (self.potential.num_charges == 0 or self.atoms.pbc.any()):
            raise PropertyNotImplementedError(
                "a dipole needs a model with electrostatics and a system without periodic directions, where "
                "it would depend on the images of the atoms; Born charges do not"
            )
        if not np.array_equal(self.atoms.numbers, self._numbers):
            self._species = self.potential.species_indices(self.atoms.numbers)
            self._numbers = self.atoms.numbers.copy()
        found = self.potential.compute_indices(
            self.atoms.positions,
            self._species,
            self.atoms.cell.array,
            self.atoms.pbc,
            efield=self._efield,
            **self._charges(),
            born_charges=_BORN in (properties or ()),
            members=any(name in _FORCES for name in properties or ()),
            extrapolations=_EXTRAPOLATIONS in (properties or ()),
        )
        if system_changes:
            self.results = {}
        self.results |= _ase_results(found, self.atoms.get_volume() if periodic else None)

    def get_born_charges(self, atoms: Atoms | None = None) -> np.ndarray:
        """Born effective charges Z_iab = dμ_a/dr_ib = dF_ib/d(efield)_a, (n, 3, 3) e: docs/electrostatics.md.

        Raises:
            EvaluationError: a model without charges, or a periodic system and several interaction layers.
        """
        return self.get_property(_BORN, atoms)

    def _charges(self) -> dict[str, Any]:
        given = (self._charge, self._molecules, self._molecule_charges)
        if self.potential.num_charges == 0 or any(value is not None for value in given):
            # The core says so where there is nothing to give them to.
            molecules = self._molecules
            if isinstance(molecules, str):
                molecules = self._array(molecules)
            return {
                "charge": self._charge,
                "molecules": molecules,
                "molecule_charges": self._molecule_charges,
            }
        fields = self.atoms.info | {
            name: values for name, values in self.atoms.arrays.items() if name == keys.MOLECULES
        }
        charge, molecules = charges_given(fields, len(self.atoms), "atoms.info")
        numbers, charges = molecules or (None, None)
        return {"charge": charge, "molecules": numbers, "molecule_charges": charges}

    def _array(self, name: str) -> np.ndarray:
        if name in self.atoms.arrays:
            return self.atoms.arrays[name]
        raise EvaluationError(
            f"the molecules were to be found in the array {name!r} of the atoms, which have "
            f"{', '.join(self.atoms.arrays)}: set it with atoms.set_array, or give numbers"
        )


def _ase_results(found: Results, volume: float | None) -> dict[str, Any]:
    results = {
        "energy": found.energy,
        "free_energy": found.energy,
        "energies": found.energies,
        "forces": found.forces,
    }
    if volume is not None:
        results["stress"] = full_3x3_to_voigt_6_stress(-found.virial / volume)
        if found.virials is not None:
            results["stresses"] = -found.virials[:, _VOIGT] / volume
    if found.charges is not None:
        shape = found.charges.shape if found.charges.shape[1] > 1 else -1
        results |= {name: getattr(found, name).reshape(shape) for name in _CHARGES}
    named = {_DIPOLE: found.dipole, _BORN: found.born_charges}
    results |= {name: values for name, values in named.items() if values is not None}
    names = _ENERGIES if found.member_energies is not None else ()
    names += _FORCES if found.member_forces is not None else ()
    results |= {name: getattr(found, name) for name in names}
    if found.extrapolations is not None:
        results[_EXTRAPOLATIONS] = found.extrapolations
    return results
