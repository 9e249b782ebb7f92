"""The arrows of docs/architecture.md: who may include, import or link whom."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import nearsight

ROOT = Path(__file__).parent.parent
LIB = Path(nearsight.__file__).parent / "lib"
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.MULTILINE)


def includes(folder: str) -> set[tuple[str, str]]:
    files = [p for p in (ROOT / folder).rglob("*") if p.suffix in (".cpp", ".hpp", ".h", ".c", ".cu", ".cuh")]
    assert files, folder
    return {(str(p.relative_to(ROOT)), name) for p in files for name in INCLUDE.findall(p.read_text())}


def foreign(folder: str, allowed: str) -> list[tuple[str, str]]:
    """Includes that `allowed` does not match."""
    return sorted(pair for pair in includes(folder) if not re.fullmatch(allowed, pair[1]))


STANDARD = r"[a-z_0-9]+|(dlfcn|immintrin|stdio|stdlib|string|stddef|stdint|sys/mman|unistd)\.h"


@pytest.mark.parametrize(
    ("folder", "allowed"),
    [
        ("csrc/core", rf"{STANDARD}|core/.*|nlohmann/json\.hpp|Eigen/(Eigenvalues|SVD)"),
        ("csrc/cuda", rf"{STANDARD}|core/.*|cuda/.*|cuda_runtime\.h|cub/.*|(ucontext|dlfcn)\.h"),
        ("csrc/capi", rf"{STANDARD}|core/.*|nearsight\.h"),
        ("csrc/torchscript", rf"{STANDARD}|core/.*|torch/.*|ATen/.*|c10/.*"),
        ("csrc/torch_ops", rf"{STANDARD}|core/.*|torch/csrc/stable/.*|torch_ops/[a-z_]+\.hpp"),
        ("csrc/bindings", rf"{STANDARD}|core/.*|bindings/[a-z_]+\.hpp|pybind11/.*"),
        ("lammps_plugin", rf"{STANDARD}|nearsight\.h|mpi\.h|[a-z_]+\.h"),
        ("openmm_plugin", rf"{STANDARD}|nearsight\.h|openmm/.*|[A-Z][A-Za-z]+\.h"),
        ("examples/c_api", rf"{STANDARD}|nearsight\.h"),
    ],
)
def test_includes(folder, allowed):
    assert foreign(folder, allowed) == []


def test_only_one_file_includes_libtorch():
    users = {
        path
        for path, name in includes("csrc")
        if name.startswith(("torch/", "ATen/")) and "stable" not in name
    }
    assert users == {"csrc/torchscript/backend.cpp"}


def test_python_layers():
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("module", ["nearsight", "nearsight.interfaces.lammps_hook"])
def test_light_imports(module):
    """LAMMPS imports these at every start."""
    code = f"import sys, {module}; print(sorted({{'torch', 'ase', 'numpy', 'openmm'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "library", ["libnearsight.so", "libnearsight_openmm.so", "lammps/nearsightplugin.so"]
)
def test_native_path_has_no_framework(library):
    listing = subprocess.run(
        ["readelf", "-d", LIB / library], capture_output=True, text=True, check=True
    ).stdout
    needed = re.findall(r"\(NEEDED\).*\[(.+)\]", listing)
    assert needed
    assert [name for name in needed if re.search("torch|c10|python|mpi|gomp|lammps", name)] == []
