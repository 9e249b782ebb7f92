"""What is said where a GPU cannot be used: over stand-ins for CUDA's libraries, and without them."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ase.data import chemical_symbols
from message_passing_models import make

import nearsight
from nearsight.errors import EvaluationError
from nearsight.export import save_model
from nearsight.interfaces.potential import Potential
from nearsight.models import NoLocalEnergy
from nearsight.models.native_ops import load_ops

ROOT = Path(__file__).parents[2]
STAND_IN = Path(__file__).with_name("stand_in")
SOURCES = ("devices.cu", "runtime.cu", "mesh/fft.cu")
CUFFT = ["Plan3d", "SetStream", "Destroy", "ExecR2C", "ExecC2R", "ExecD2Z", "ExecZ2D"]
MEMORY, OTHER = 2, 700  # cudaError_t


def compile_to(output: Path, *arguments: object) -> Path:
    compiler = os.environ.get("CXX", "c++")
    subprocess.run([compiler, "-std=c++17", "-o", str(output), *map(str, arguments)], check=True)
    return output


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    output = tmp_path_factory.mktemp("stand_in") / "program"
    folders = (f"-I{STAND_IN}", f"-I{ROOT / 'csrc'}")
    sources = (STAND_IN / "program.cpp", *(ROOT / "csrc/cuda" / name for name in SOURCES))
    return compile_to(output, *folders, "-xc++", *sources, "-ldl")


def said(program, *words, **environment):
    done = subprocess.run(
        [program, *words], capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert not done.stderr
    return done.stdout.strip()


def test_gpus_of_the_stand_in(program):
    assert said(program, "devices") == "2"
    assert said(program, "use", "1") == "1"
    assert said(program, "use", "-1") == "0"


@pytest.mark.parametrize(
    ("words", "environment", "sentence"),
    [
        (
            "devices",
            {"STAND_IN": "cudaGetDeviceCount:35"},
            "the NVIDIA driver of this machine knows CUDA 12.4, but nearsight was built with CUDA 13.0: "
            "update the driver, or use device cpu",
        ),
        (
            "devices",
            {"STAND_IN": "cudaGetDeviceCount:35", "STAND_IN_DRIVER": "0"},
            "device cuda was asked for, but this machine has no NVIDIA driver: install it, or use device cpu",
        ),
        (
            "devices",
            {"STAND_IN": "cudaGetDeviceCount:100"},
            "device cuda was asked for, but the NVIDIA driver finds no GPU: check nvidia-smi and "
            "CUDA_VISIBLE_DEVICES, or use device cpu",
        ),
        (
            "use 2",
            {},
            "GPU number 2 was asked for, but this machine has 2, numbered from 0: choose one of them",
        ),
        (
            "use 1",
            {"STAND_IN": f"cudaSetDevice:{MEMORY}"},
            "GPU 1 has no free memory even to begin with: end what else runs on it",
        ),
        (
            "allocate 4294967296",
            {"STAND_IN": f"cudaMalloc:{MEMORY}"},
            "the GPU has 1.5 GiB of 80.0 GiB free, and this system needs 4.0 GiB more: use more GPUs, or a "
            "smaller system",
        ),
        (
            "synchronize",
            {"STAND_IN": f"cudaStreamSynchronize:{OTHER}"},
            "CUDA failed in a kernel: an illegal memory access was encountered; run once more with "
            "CUDA_LAUNCH_BLOCKING=1, and report it",
        ),
    ],
)
def test_what_the_runtime_says(program, words, environment, sentence):
    assert said(program, *words.split(), **environment) == sentence


def cufft(folder, functions, status=0):
    """A stand-in for cuFFT whose plans and transforms have this status."""
    source = folder / "cufft.cpp"
    source.write_text("".join(f'extern "C" int cufft{name}() {{ return {status}; }}\n' for name in functions))
    compile_to(folder / "libcufft.so.12", "-shared", "-fPIC", source)
    return {"LD_LIBRARY_PATH": str(folder)}


@pytest.mark.parametrize(
    ("missing", "status", "sentence"),
    [
        (None, 0, ""),
        (
            "ExecD2Z",
            0,
            "the cuFFT that was found has no function cufftExecD2Z: install cuFFT 11 or 12, or use device "
            "cpu",
        ),
        (
            None,
            2,
            "the GPU has not enough memory left for the plan of the charges' mesh: use a smaller system, or "
            "a larger rtol",
        ),
        (None, 5, "cuFFT failed in the plan with status 5: report it"),
    ],
)
def test_what_is_said_of_cufft(program, tmp_path, missing, status, sentence):
    functions = [name for name in CUFFT if name != missing]
    assert said(program, "fft", **cufft(tmp_path, functions, status)) == sentence


@pytest.mark.skipif(ctypes.util.find_library("cufft") is not None, reason="this machine has cuFFT")
def test_no_cufft(program):
    found = said(program, "fft")
    assert found.startswith(
        "electrostatics on a GPU needs cuFFT, but no libcufft.so.12 or libcufft.so.11 was"
    )
    assert "pip install nvidia-cufft (of CUDA 12: nvidia-cufft-cu12)" in found


# ---- installations ----

ASK = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
library.ns_last_error.restype = ctypes.c_char_p
count = ctypes.c_int()
print(library.ns_num_cuda_devices(ctypes.byref(count)), library.ns_last_error().decode())
"""


def without_kernels(folder):
    """An installation's libraries but for the kernels."""
    for file in (Path(nearsight.__file__).parent / "lib").glob("*.so"):
        if not file.name.startswith("libnearsight_cuda"):
            (folder / file.name).symlink_to(file)
    return folder


def answer(folder):
    command = [sys.executable, "-c", ASK, folder / "libnearsight.so"]
    environment = {**os.environ, "NEARSIGHT_CUDA": "emulated"}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.strip()


def test_a_build_without_kernels(tmp_path):
    found = answer(without_kernels(tmp_path))
    assert re.fullmatch(
        r"3 device cuda was asked for, but this build has no CUDA kernels \(.*libnearsight_cuda_emulated.so: "
        r"cannot open .*\): install nvcc and build nearsight again, or use device cpu",
        found,
    )


def test_kernels_of_another_version(tmp_path):
    source = tmp_path / "empty.cpp"
    source.write_text("")
    compile_to(tmp_path / "libnearsight_cuda_emulated.so", "-shared", "-fPIC", source)
    expected = "3 libnearsight_cuda_emulated.so belongs to another nearsight version: reinstall"
    assert answer(without_kernels(tmp_path)) == expected


# ---- models and tensors ----


def save(path, model):
    source = {"reference_energies": dict.fromkeys(model.species, 0.0), "reference_energies_source": "given"}
    save_model(path, model, **source, provenance={})
    return path


def test_too_many_species(tmp_path):
    path = save(tmp_path / "model.pt", NoLocalEnergy(chemical_symbols[1:87]))
    match = r"device cuda knows models of up to 85 species, and this one has 86: use device cpu"
    with pytest.raises(EvaluationError, match=match):
        Potential(path, device="cuda").compute([[0.0, 0.0, 0.0]], ["H"])


def test_a_model_without_twin(tmp_path, monkeypatch):
    monkeypatch.setenv("NEARSIGHT_RADIALS", "analytic")
    path = save(tmp_path / "model.pt", make("one interaction"))
    match = r"has no code for device cuda \(NEARSIGHT_RADIALS is analytic .*\): use device cpu, or TorchForce"
    with pytest.raises(EvaluationError, match=match):
        Potential(path, device="cuda")


@pytest.mark.skipif(bool(os.environ.get("NEARSIGHT_TEST_GPU")), reason="of tensors of the CPU")
def test_ops_of_devices_are_no_ops_of_the_cpu(monkeypatch):
    monkeypatch.delenv("NEARSIGHT_CUDA")
    load_ops()
    x = torch.zeros(2, 3, 4, dtype=torch.float64)
    with pytest.raises(RuntimeError, match=r"take tensors of the CPU only in tests"):
        torch.ops.nearsight_device.dual_silu(x, torch.empty_like(x))
