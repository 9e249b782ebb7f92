"""Crystals with known lattice energies, and random charged systems."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nearsight.units import COULOMB

PERIODIC, SLAB, OPEN = [True] * 3, [True, True, False], [False] * 3
FCC = 0.5 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
BCC = 0.5 * np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]])
HEXAGONAL = np.array([[1, 0, 0], [-0.5, np.sqrt(0.75), 0], [0, 0, np.sqrt(8 / 3)]])


# Arguments of random_system.
SYSTEMS = {
    "neutral": {},
    "charged": {"net": 6.0},
    "gaussian": {"widths": True, "net": -2.0},
    "slab": {"pbc": SLAB},
    "charged slab": {"pbc": SLAB, "net": 3.0},
    "orthorhombic": {"orthorhombic": True},
}


class System(NamedTuple):
    """Arguments of the lattice sums, and the energy where it is known."""

    positions: np.ndarray  # [n, 3] Å
    charges: np.ndarray  # [n] e
    cell: np.ndarray  # [3, 3] Å
    pbc: list[bool]
    widths: np.ndarray | None = None  # [n] Å
    energy: float | None = None  # eV

    def arguments(self):
        return self.positions, self.charges, self.cell, self.pbc, self.widths


# Cell, fractions, charges, energy per cell in e²/Å for a = 1 Å. The digits are of an independent sum in
# numpy, two splittings agreeing to 1e-13; NaCl: OEIS A085469, sc: Makov and Payne, PRB 51, 4014 (1995).
CRYSTALS = {
    "NaCl": (FCC, [[0, 0, 0], [0.5, 0.5, 0.5]], [1, -1], -1.74756459463318 / 0.5),
    "CsCl": (np.eye(3), [[0, 0, 0], [0.5, 0.5, 0.5]], [1, -1], -1.76267477307099 / np.sqrt(0.75)),
    "ZnS": (FCC, [[0, 0, 0], [0.25, 0.25, 0.25]], [2, -2], -4 * 1.63805505338879 / np.sqrt(3 / 16)),
    "wurtzite": (
        HEXAGONAL,
        [[1 / 3, 2 / 3, 0], [2 / 3, 1 / 3, 0.5], [1 / 3, 2 / 3, 0.375], [2 / 3, 1 / 3, 0.875]],
        [2, 2, -2, -2],
        -2 * 4 * 1.64132162737195 / np.sqrt(3 / 8),
    ),
    "CaF2": (FCC, [[0, 0, 0], [0.25] * 3, [0.75] * 3], [2, -1, -1], -11.6365752270767),
    "sc": (np.eye(3), [[0, 0, 0]], [1], -2.83729747948062 / 2),
    "bcc": (BCC, [[0, 0, 0]], [1], -3.63923344950864 / 2),
    "fcc": (FCC, [[0, 0, 0]], [1], -4.58486207411380 / 2),
}


def crystal(name: str, constant: float = 4.1) -> System:
    """The primitive cell, in its usual setting."""
    cell, fractions, charges, energy = CRYSTALS[name]
    cell = constant * cell
    return System(
        np.array(fractions) @ cell,
        np.array(charges, float),
        cell,
        PERIODIC,
        None,
        COULOMB * energy / constant,
    )


def rotation(rng: np.random.Generator) -> np.ndarray:
    matrix, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return matrix * np.sign(np.linalg.det(matrix))


def supercell(system: System, repeats: tuple[int, int, int]) -> System:
    shifts = np.stack(np.meshgrid(*map(np.arange, repeats), indexing="ij"), -1).reshape(-1, 3) @ system.cell
    return system._replace(
        positions=(system.positions[None] + shifts[:, None]).reshape(-1, 3),
        charges=np.tile(system.charges, len(shifts)),
        cell=np.diag(repeats) @ system.cell,
        energy=system.energy * len(shifts),
    )


def same_crystal(system: System, change: str) -> System:
    """The same crystal in other clothes."""
    rng = np.random.default_rng(3)
    if change == "primitive":
        return system
    if change == "supercell":
        return supercell(system, (2, 3, 1))
    if change == "sheared":  # an equivalent lattice basis, left-handed
        return system._replace(cell=np.array([[1, 2, 0], [0, 1, 0], [1, -1, -1]]) @ system.cell)
    if change == "rotated":
        turn = rotation(rng)
        return system._replace(positions=system.positions @ turn, cell=system.cell @ turn)
    assert change == "shifted"
    return system._replace(positions=system.positions + np.array([np.pi, -np.e, np.sqrt(2)]))


CHANGES = ["primitive", "supercell", "sheared", "rotated", "shifted"]


def random_system(
    seed: int,
    num_charges: int = 24,
    *,
    pbc: list[bool] = PERIODIC,
    net: float = 0.0,
    widths: bool = False,
    spacing: float = 2.6,
    orthorhombic: bool = False,
) -> System:
    """A jittered grid of charges in a cell of which angles are up to 30° from right."""
    rng = np.random.default_rng(seed)
    side = int(np.ceil(num_charges ** (1 / 3)))
    grid = np.stack(np.meshgrid(*3 * [np.arange(side)], indexing="ij"), -1).reshape(-1, 3)
    fractions = (rng.permutation(grid)[:num_charges] + rng.uniform(-0.2, 0.2, (num_charges, 3))) / side
    tilt = np.zeros((3, 3)) if orthorhombic else np.tril(rng.uniform(-0.4, 0.4, (3, 3)), -1)
    turn = np.eye(3) if orthorhombic else rotation(rng)
    cell = spacing * side * (np.diag([1.0, 1.1, 1.2]) + tilt) @ turn
    charges = rng.normal(size=num_charges)
    charges += (net - charges.sum()) / num_charges
    sizes = rng.uniform(0.3, 1.0, num_charges) if widths else None
    return System(fractions @ cell, charges, cell, pbc, sizes)


def strained(system: System, strain: np.ndarray) -> System:
    deformation = np.eye(3) + strain
    return system._replace(positions=system.positions @ deformation, cell=system.cell @ deformation)


def differences(energy, system: System, step: float = 1e-4):
    """Potentials, forces and virial as central differences of fourth order of energy(system)."""

    def derivative(changed):
        def pair(h):
            return energy(changed(h)) - energy(changed(-h))

        return (8 * pair(step) - pair(2 * step)) / (12 * step)

    def with_entry(name, index):
        def changed(h):
            array = getattr(system, name).copy()
            array[index] += h
            return system._replace(**{name: array})

        return changed

    def with_strain(a, b):
        unit = np.zeros((3, 3))
        unit[a, b] += 0.5
        unit[b, a] += 0.5
        return lambda h: strained(system, h * unit)

    some = range(min(4, len(system.charges)))
    potentials = np.array([derivative(with_entry("charges", i)) for i in some])
    forces = np.array([[-derivative(with_entry("positions", (i, c))) for c in range(3)] for i in some])
    virial = np.array([[-derivative(with_strain(a, b)) for b in range(3)] for a in range(3)])
    return potentials, forces, virial
