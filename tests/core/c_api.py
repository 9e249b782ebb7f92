"""The structures of nearsight.h for ctypes."""

from __future__ import annotations

import ctypes
from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    byref,
    c_double,
    c_int,
    c_longlong,
    c_size_t,
    c_void_p,
    sizeof,
)
from pathlib import Path

import numpy as np

import nearsight

ARRAYS = ("forces", "energies", "virials", "centroid_virials")
MEMBERS = ("member_energies", "member_forces", "member_virials")
EXTRAPOLATIONS = ("extrapolations", "lowest_features", "highest_features")
CHARGES = ("charges", "potentials")
TIMES = ("electrostatic", "communication", "transform", "pair", "spreading")


class Options(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("precision", c_int),
        ("device", c_int),
        ("num_threads", c_int),
        ("skin", c_double),
        ("device_index", c_int),
    ]


class Results(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("energy", c_double),
        ("virial", c_double * 6),
        *((name, POINTER(c_double)) for name in (*ARRAYS, *MEMBERS)),
        ("extrapolations", POINTER(c_longlong)),
        *((name, POINTER(c_double)) for name in (*EXTRAPOLATIONS[1:], *CHARGES)),
        ("electrostatic", c_double),
        ("born_charges", POINTER(c_double)),
        *((f"{part}_seconds", c_double) for part in TIMES),
        ("equilibration_steps", c_int),
        ("dispersion", c_double),
    ]


class System(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("num_atoms", c_int),
        ("positions", POINTER(c_double)),
        ("species", POINTER(c_int)),
        ("cell", POINTER(c_double)),
        ("pbc", c_int * 3),
        ("total_charge", POINTER(c_double)),
        ("efield", POINTER(c_double)),
        ("molecules", POINTER(c_int)),
        ("num_molecules", c_int),
        ("molecule_charges", POINTER(c_double)),
    ]


class Feature(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("species", c_int),
        ("label", ctypes.c_char_p),
        ("minimum", c_double),
        ("maximum", c_double),
    ]


def pointer(array: np.ndarray):
    return array.ctypes.data_as(POINTER(np.ctypeslib.as_ctypes_type(array.dtype)))


class Host(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("context", c_void_p),
        ("rank", c_int),
        ("num_ranks", c_int),
        ("all_sum", CFUNCTYPE(c_int, c_void_p, POINTER(c_double), c_int)),
        ("all_to_all", c_void_p),
        ("exchange_forward", c_void_p),
        ("exchange_reverse", c_void_p),
    ]


def open_library():
    lib = ctypes.CDLL(str(Path(nearsight.__file__).parent / "lib" / "libnearsight.so"))
    lib.ns_last_error.restype = ctypes.c_char_p
    return lib


def load_model(library, path) -> c_void_p:
    handle = c_void_p()
    assert library.ns_model_load(str(path).encode(), 0, byref(handle)) == 0
    return handle


def make_evaluator(library, model: c_void_p, host: Host | None = None, **options) -> c_void_p:
    """In double, one thread, on the CPU without skin, unless `options` says otherwise."""
    handle = c_void_p()
    options = Options(**{"struct_size": sizeof(Options), "precision": 1, "num_threads": 1} | options)
    lent = byref(host) if host else None
    assert library.ns_evaluator_create(model, byref(options), lent, byref(handle)) == 0
    return handle


def results_for(**arrays: np.ndarray) -> Results:
    results = Results(struct_size=sizeof(Results))
    for name, array in arrays.items():
        setattr(results, name, pointer(array))
    return results


def system_of(x, s, cell, pbc=(1, 1, 1), charge: np.ndarray | None = None) -> System:
    total = pointer(charge) if charge is not None else None
    return System(sizeof(System), len(s), pointer(x), pointer(s), pointer(cell), (c_int * 3)(*pbc), total)
