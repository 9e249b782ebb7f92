"""A periodic system split among ranks, as LAMMPS does, in threads of one process through the C API."""

from __future__ import annotations

import ctypes
import itertools
import threading
from ctypes import CFUNCTYPE, POINTER, Structure, byref, c_double, c_int, c_size_t, c_void_p, sizeof
from dataclasses import dataclass, field

import numpy as np
from core.c_api import Host, Options, Results, load_model, open_library, pointer

DOUBLE, CUDA = 1, 1
Callback = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int)


class Domain(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("num_owned", c_int),
        ("num_atoms", c_int),
        ("positions", POINTER(c_double)),
        ("species", POINTER(c_int)),
        ("num_centers", c_int),
        ("centers", POINTER(c_int)),
        ("num_neighbors", POINTER(c_int)),
        ("neighbors", c_void_p),
        ("neighbor_mask", c_int),
        ("cell", POINTER(c_double)),
        ("pbc", c_int * 3),
        *((name, POINTER(c_double)) for name in ("total_charge", "efield", "memory")),
        ("molecules", POINTER(c_int)),
        ("num_molecules", c_int),
        ("molecule_charges", POINTER(c_double)),
    ]


@dataclass
class Rank:
    atoms: np.ndarray  # numbers in the whole system, owned ones first
    num_owned: int
    positions: np.ndarray
    species: np.ndarray
    centers: np.ndarray
    origins: np.ndarray  # [ghosts, 2] rank and number there of each ghost's owner
    rows: np.ndarray | None = field(default=None)
    energy: float = 0.0
    forces: np.ndarray | None = field(default=None)
    error: str = ""


def split(structure, num_ranks: int, reach: float, center_reach: float) -> list[Rank]:
    """Slabs of atoms along x; ghosts within `reach` of an owned atom, centers within `center_reach`."""
    positions, species, cell, _ = structure
    rank_of = np.minimum((positions @ np.linalg.inv(cell))[:, 0] % 1.0 * num_ranks, num_ranks - 1).astype(int)
    shifts = np.array(list(itertools.product(range(-3, 4), repeat=3)))
    places = np.zeros(len(species), int)
    ranks = []
    for number in range(num_ranks):
        owned = np.flatnonzero(rank_of == number)
        places[owned] = np.arange(len(owned))
        images = positions[None] + (shifts @ cell)[:, None]
        far = np.min(
            np.linalg.norm(images[:, :, None] - positions[owned], axis=-1),
            axis=-1,
            initial=np.inf,
        )
        is_own = (shifts == 0).all(1)[:, None] & (rank_of == number)[None]
        which, ghosts = np.nonzero((far < reach) & ~is_own)
        all_positions = np.concatenate([positions[owned], images[which, ghosts]])
        distance = np.concatenate([np.zeros(len(owned)), far[which, ghosts]])
        atoms = np.concatenate([owned, ghosts])
        centers = np.flatnonzero((distance < center_reach) | (np.arange(len(atoms)) < len(owned)))
        ranks.append(
            Rank(
                atoms,
                len(owned),
                np.ascontiguousarray(all_positions),
                species[atoms].astype(np.int32),
                centers.astype(np.int32),
                np.stack([rank_of[ghosts], ghosts], 1),
            )
        )
    for rank in ranks:
        rank.origins[:, 1] = places[rank.origins[:, 1]]
    return ranks


def evaluate(path, ranks: list[Rank], *, exchange: bool, precision: int = DOUBLE) -> tuple[float, np.ndarray]:
    """Energy and forces [atoms of the whole system] of a model on a GPU."""
    library = open_library()
    model = load_model(library, path)
    barrier = threading.Barrier(len(ranks))

    def posted(rank: Rank, rows: int, width: int, is_double: int) -> np.ndarray:
        kind = c_double if is_double else ctypes.c_float
        array = ctypes.cast(rows, POINTER(kind))
        return np.ctypeslib.as_array(array, (len(rank.atoms), width))

    def callbacks(rank: Rank):
        def forward(_, *arguments):
            rank.rows = posted(rank, *arguments)
            barrier.wait()
            for ghost, (owner, place) in enumerate(rank.origins):
                rank.rows[rank.num_owned + ghost] = ranks[owner].rows[place]
            barrier.wait()
            return 0

        def reverse(_, *arguments):
            rank.rows = posted(rank, *arguments)
            barrier.wait()
            for other in ranks:
                for ghost, (owner, place) in enumerate(other.origins):
                    if ranks[owner] is rank:
                        rank.rows[place] += other.rows[other.num_owned + ghost]
            barrier.wait()
            return 0

        return Callback(forward), Callback(reverse)

    def run(rank: Rank) -> None:
        options = Options(sizeof(Options), precision, CUDA, 1, 0.0, -1)
        kept = callbacks(rank)
        host = Host(struct_size=sizeof(Host), num_ranks=1)
        if exchange:
            host.exchange_forward, host.exchange_reverse = (ctypes.cast(one, c_void_p) for one in kept)
        handle = c_void_p()
        results = Results(struct_size=sizeof(Results))
        rank.forces = np.zeros_like(rank.positions)
        results.forces = pointer(rank.forces)
        domain = Domain(
            struct_size=sizeof(Domain),
            num_owned=rank.num_owned,
            num_atoms=len(rank.atoms),
            positions=pointer(rank.positions),
            species=pointer(rank.species),
            num_centers=len(rank.centers),
            centers=pointer(rank.centers),
            neighbor_mask=-1,
        )
        failed = library.ns_evaluator_create(model, byref(options), byref(host), byref(handle))
        failed = failed or library.ns_evaluate_domain(handle, byref(domain), byref(results))
        if failed:
            rank.error = library.ns_last_error().decode()
            barrier.abort()
        rank.energy = results.energy

    threads = [threading.Thread(target=run, args=(rank,)) for rank in ranks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not any(rank.error for rank in ranks), [rank.error for rank in ranks]
    forces = np.zeros((1 + max(rank.atoms.max() for rank in ranks), 3))
    for rank in ranks:
        np.add.at(forces, rank.atoms, rank.forces)
    return sum(rank.energy for rank in ranks), forces
