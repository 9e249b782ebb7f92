"""What the disagreement of a committee's members says (docs/uncertainty.md): formulas and file format.

Standard deviations are those of the population, sqrt(<(x - <x>)²>) over the M members, as in DeePMD-kit
(Wang et al., Comput. Phys. Commun. 228, 178, 2018; Zeng et al., J. Chem. Phys. 159, 054801, 2023).
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np

# The columns of DeePMD-kit's model_devi.out, which its tools read by number.
COLUMNS = ("step", "max_devi_v", "min_devi_v", "avg_devi_v", "max_devi_f", "min_devi_f", "avg_devi_f")
FILE_HEADER = f"#{COLUMNS[0]:>11}" + "".join(f"{name:>19}" for name in COLUMNS[1:])


def forces_std(member_forces: np.ndarray) -> np.ndarray:
    """Return sqrt(<|F - <F>|²>) of each atom, (n,), of member forces (M, n, 3)."""
    return np.sqrt(member_forces.var(axis=0).sum(axis=-1))


@dataclass(frozen=True)
class Deviation:
    """Largest, smallest and mean deviation of forces over atoms and of virials per atom over 9 components."""

    max_virial: float  # of sqrt(<(W - <W>)²>) / n, eV
    min_virial: float
    avg_virial: float  # root mean square of the components
    max_forces: float  # of `forces_std`, eV/Å
    min_forces: float
    avg_forces: float  # mean over atoms

    @classmethod
    def of(cls, member_forces: np.ndarray, member_virials: np.ndarray) -> Deviation:
        """Return the deviation of member forces (M, n, 3) and virials (M, 6) in xx, yy, zz, xy, xz, yz."""
        forces = forces_std(member_forces)
        virials = member_virials[:, [0, 3, 4, 3, 1, 5, 4, 5, 2]].std(axis=0) / len(forces)
        average = np.sqrt((virials**2).mean())
        return cls(virials.max(), virials.min(), average, forces.max(), forces.min(), forces.mean())

    def file_row(self, step: int) -> str:
        """Return a line of the file, whose first line is `FILE_HEADER`."""
        return f"{step:12d}" + "".join(f"{value:19.6e}" for value in astuple(self))
