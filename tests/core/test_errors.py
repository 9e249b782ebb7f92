"""Every refusal of the core, through the Python bindings and through the C API."""

from __future__ import annotations

import ctypes
import json
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import nearsight
from nearsight.errors import EvaluationError, ModelFileError
from nearsight.lib import _core

from .core_models import random_box

PERIODIC = [True, True, True]


def first_function(metadata):
    return metadata["hyperparameters"]["descriptor"]["symmetry_functions"]["H"][0]


def edited(source: Path, target: Path, change=None, drop=(), replace=None) -> Path:
    """A copy of a model file with other metadata or entries."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if any(name.endswith(d) for d in drop):
                continue
            if change and name.endswith("nearsight.json"):
                metadata = json.loads(content)
                change(metadata)
                content = json.dumps(metadata).encode()
            if replace and name.endswith(replace[0]):
                content = replace[1]
            new.writestr(name, content)
    return target


def refuse(path, message, error=ModelFileError, **options):
    with pytest.raises(error, match=message):
        _core.Evaluator(str(path), **options)


def test_missing_file(tmp_path):
    refuse(tmp_path / "none.pt", "cannot open model file .*none.pt': No such file")


def test_folder(tmp_path):
    refuse(tmp_path, "truncated or not a nearsight model")


@pytest.mark.parametrize("size", [0, 10, 1000, -100])
def test_truncated(bpnn, tmp_path, size):
    path = tmp_path / "cut.pt"
    path.write_bytes(bpnn.read_bytes()[:size])
    refuse(path, "truncated or not a nearsight model: expected a zip archive")


def test_corrupted(bpnn, tmp_path):
    content = bytearray(bpnn.read_bytes())
    start = content.find(b'"architecture"')
    content[start + 2] ^= 1
    path = tmp_path / "corrupted.pt"
    path.write_bytes(content)
    refuse(path, "corrupted: the checksum of .*nearsight.json' is wrong")


def test_foreign_torchscript(tmp_path):
    path = tmp_path / "foreign.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(path))
    refuse(path, "not a nearsight model: it has no nearsight.json inside")


def test_compressed_again(bpnn, tmp_path):
    path = tmp_path / "compressed.pt"
    with zipfile.ZipFile(bpnn) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    refuse(path, "was compressed again")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format_version=99), "has format version 99, this nearsight .* reads up to 2"),
        (lambda m: m.update(format="other"), "nearsight.json says otherwise"),
        (lambda m: m.pop("species"), "has damaged metadata .*species"),
        (lambda m: m.update(cutoff=-1.0), "metadata that cannot be right"),
        (lambda m: m.update(units={"length": "bohr", "energy": "eV"}), "expected angstrom and eV"),
        (lambda m: m.update(couple={"kind": "dispersion"}), "couple 'dispersion' is not known"),
        (lambda m: m.update(couple={"kind": "coulomb"}), "couple has a damaged record .*key 'charges'"),
        (
            lambda m: m.update(couple={"kind": "eigenstate", "states": 2, "state": 2}),
            "state 2 of 2 does not exist",
        ),
        (
            lambda m: m.update(couple={"kind": "eigenstate", "states": 2, "state": 0}),
            "expects 3 readout columns",
        ),
        (
            lambda m: m["hyperparameters"]["descriptor"].update(cutoff_function="sine"),
            "cutoff function 'sine' is not known",
        ),
        (
            lambda m: m["hyperparameters"]["networks"]["H"].update(activation=["swish", "tanh", "linear"]),
            "activation 'swish' is not known",
        ),
        (
            lambda m: m["hyperparameters"]["networks"]["H"].update(activation=["tanh"]),
            "network of H has 3 layers but 1 activations",
        ),
        (lambda m: m["hyperparameters"]["networks"]["H"].update(hidden=[25, 24]), "have shape .*, expected"),
        (lambda m: m["hyperparameters"].pop("networks"), "damaged hyperparameters"),
        (lambda m: m["hyperparameters"].update(members=2), "2 members and 1 readout columns"),
        (lambda m: m["hyperparameters"]["descriptor"].pop("kind"), "damaged descriptor"),
        (
            lambda m: m["hyperparameters"]["descriptor"].update(kind="fchl"),
            "descriptor kind 'fchl' is not known",
        ),
        (lambda m: m.update(couple={"kind": "sum", "members": 0}), "has 0 members, expected at least 1"),
        (lambda m: m.update(format_version=1), "format version 1, older than any"),
        (
            lambda m: first_function(m).update(neighbors=["Xe"]),
            "names the species 'Xe'",
        ),
        (
            lambda m: first_function(m).update(kind="compact_radial", inner=0.0, core="sine"),
            "core function 'sine' is not known, expected one of poly1, poly2, poly3, poly4, exp",
        ),
        (
            lambda m: first_function(m).update(kind="round"),
            "symmetry function kind 'round' is not known",
        ),
    ],
)
def test_metadata(bpnn, tmp_path, change, message):
    path = edited(bpnn, tmp_path / "edited.pt", change)
    with pytest.raises((ModelFileError, EvaluationError), match=message):
        _core.Evaluator(str(path))


def test_weights(bpnn, tmp_path):
    refuse(edited(bpnn, tmp_path / "a.pt", drop=["weights.safetensors"]), "has no weights.safetensors inside")
    refuse(
        edited(bpnn, tmp_path / "b.pt", replace=("weights.safetensors", b"\xff" * 40)),
        "damaged weights: the header is cut off",
    )


def test_options(bpnn):
    refuse(bpnn, "backend is 'fast', expected auto, native or torchscript", EvaluationError, backend="fast")
    refuse(bpnn, "precision is 'half', expected mixed or double", EvaluationError, precision="half")


def test_native_refuses_other_architectures(bpnn, tmp_path):
    path = edited(bpnn, tmp_path / "other.pt", lambda m: m.update(architecture="other", native=False))
    refuse(
        path, "architecture 'other', which the native engine does not know", EvaluationError, backend="native"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, s, c: s.__setitem__(3, 2), "atom 3 .* has species number 2, expected -1 to 1"),
        (lambda x, s, c: x.__setitem__((5, 1), np.nan), "position.* not.* finite"),
        (lambda x, s, c: x.__setitem__((5, 1), np.inf), "position.* not.* finite"),
        (lambda x, s, c: x.__setitem__(4, x[5]), "must not be on top of each other"),
        (lambda x, s, c: c.__setitem__(1, 2 * c[0]), "cell"),
        (lambda x, s, c: c.__setitem__(1, 0.0), "cell"),
    ],
)
@pytest.mark.parametrize("backend", ["native", "torchscript"])
def test_structures(bpnn, backend, change, message):
    positions, species, cell = random_box(0)
    change(positions, species, cell)
    with pytest.raises(EvaluationError, match=message):
        _core.Evaluator(str(bpnn), backend=backend).evaluate(positions, species, cell, PERIODIC)


# ---- the C API ----


class Options(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("precision", ctypes.c_int),
        ("device", ctypes.c_int),
        ("num_threads", ctypes.c_int),
        ("skin", ctypes.c_double),
        ("device_index", ctypes.c_int),
    ]


@pytest.fixture(scope="module")
def library():
    path = Path(nearsight.__file__).parent / "lib" / "libnearsight.so"
    lib = ctypes.CDLL(str(path))
    for name in ("ns_last_error", "ns_model_species", "ns_model_architecture", "ns_version"):
        getattr(lib, name).restype = ctypes.c_char_p
    lib.ns_model_cutoff.restype = ctypes.c_double
    return lib


@pytest.fixture
def model(library, bpnn):
    handle = ctypes.c_void_p()
    assert library.ns_model_load(str(bpnn).encode(), 0, ctypes.byref(handle)) == 0
    yield handle
    library.ns_model_free(handle)


def test_c_model(library, model):
    assert library.ns_api_version() == 1
    assert library.ns_version().decode() == nearsight.__version__
    assert library.ns_model_num_species(model) == 2
    assert [library.ns_model_species(model, k) for k in (0, 1, 2, -1)] == [b"H", b"O", None, None]
    assert [library.ns_model_find_species(model, s) for s in (b"O", b"Xe", None)] == [1, -1, -1]
    assert library.ns_model_architecture(model) == b"bpnn"
    assert library.ns_model_cutoff(model) == 4.5


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (Options(8, 0, 0, 1, 0.0), 1, "struct_size is not sizeof"),
        (Options(ctypes.sizeof(Options), 0, 0, -1, 0.0), 1, "must not be negative"),
        (Options(ctypes.sizeof(Options), 0, 0, 1, -0.5), 1, "must not be negative"),
    ],
)
def test_c_options(library, model, options, status, message):
    handle = ctypes.c_void_p()
    found = library.ns_evaluator_create(model, ctypes.byref(options), None, ctypes.byref(handle))
    assert found == status
    assert message in library.ns_last_error().decode()


def test_c_error_text_does_not_move(library, tmp_path):
    """C leaves the order of arguments open: check(call() == NS_OK, ns_last_error()) prints the sentence."""
    library.ns_last_error.restype = ctypes.c_void_p
    before = library.ns_last_error()
    handle = ctypes.c_void_p()
    library.ns_model_load(str(tmp_path / ("x" * 300)).encode(), 0, ctypes.byref(handle))
    assert library.ns_last_error() == before
    assert ctypes.string_at(before).startswith(b"cannot open model file")
    library.ns_last_error.restype = ctypes.c_char_p


def test_c_null(library, tmp_path):
    handle = ctypes.c_void_p()
    assert library.ns_model_load(None, 0, ctypes.byref(handle)) == 1
    assert "must not be NULL" in library.ns_last_error().decode()
    assert library.ns_model_load(b"x", 7, ctypes.byref(handle)) == 1
    assert "unknown backend" in library.ns_last_error().decode()
    assert library.ns_model_load(str(tmp_path / "no.pt").encode(), 0, ctypes.byref(handle)) == 2
    assert library.ns_evaluate_system(None, None, None) == 1
    assert "evaluator must not be NULL" in library.ns_last_error().decode()
