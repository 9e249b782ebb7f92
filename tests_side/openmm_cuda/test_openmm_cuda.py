"""OpenMM's real CUDA platform with our kernel, over a stand-in for the driver, and with emulated kernels.

What does not run here is the language: OpenMM compiles nothing, and its own kernels do nothing.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import openmm
import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
OPENMM = Path(openmm.version.openmm_library_path)
NVRTC = [
    *("CreateProgram", "CompileProgram", "DestroyProgram", "GetErrorString", "GetNumSupportedArchs"),
    *("GetPTX", "GetPTXSize", "GetProgramLog", "GetProgramLogSize", "GetSupportedArchs"),
]
CUFFT = [
    "Destroy",
    "Plan3d",
    "SetStream",
    *(f"Exec{kind}" for kind in ("C2C", "C2R", "D2Z", "R2C", "Z2D", "Z2Z")),
]
NVRTC_SOURCE = """
#include <stddef.h>
int nvrtcGetNumSupportedArchs(int* count) { return *count = 1, 0; }
int nvrtcGetSupportedArchs(int* found) { return *found = 90, 0; }
int nvrtcGetPTXSize(void* program, size_t* size) { return *size = 1, 0; }
int nvrtcGetPTX(void* program, char* text) { return *text = 0, 0; }
"""


def compile_library(name, source, *options):
    compiler, output = os.environ.get("CXX", "c++"), ("-o", source.parent / name, f"-Wl,-soname,{name}")
    subprocess.run([compiler, "-shared", "-fPIC", *options, source, *output], check=True)


@pytest.fixture(scope="session")
def driver(tmp_path_factory):
    """A folder with libraries in place of CUDA's."""
    folder = tmp_path_factory.mktemp("driver")
    source = folder / "driver.cpp"
    source.write_text((HERE / "driver.cpp").read_text())
    compile_library("libcuda.so.1", source, "-std=c++17", f"-I{ROOT / 'openmm_plugin'}")
    for name, prefix, functions, given in (
        ("libnvrtc.so.12", "nvrtc", NVRTC, NVRTC_SOURCE),
        ("libcufft.so.11", "cufft", CUFFT, ""),
    ):
        rest = [f"int {prefix}{f}() {{ return 0; }}" for f in functions if f"{prefix}{f}(" not in given]
        source, versions = folder / f"{prefix}.c", folder / f"{prefix}.map"
        source.write_text("\n".join([given, *rest]))
        versions.write_text(f"{name} {{ global: *; }};")
        compile_library(name, source, "-xc", f"-Wl,--version-script={versions}")
    return folder


@pytest.fixture(scope="session")
def plugins(tmp_path_factory):
    """OpenMM's CUDA platform, without the CUDA libraries that it would bring."""
    folder = tmp_path_factory.mktemp("openmm_cuda")
    package = f"openmm-cuda-12=={openmm.version.short_version}"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, package]
    subprocess.run(command, check=True)
    return folder / "OpenMM.libs" / "lib" / "plugins"


SCRIPT = """
import json, sys, numpy, openmm
from models_for_tests import random_structure
sys.path.append(sys.argv[2])
from test_force import TRICLINIC, energy_forces, make_context, make_system
openmm.Platform.loadPluginLibrary(sys.argv[1])
from nearsight.openmm import create_force
model, precision, reorders = json.loads(sys.argv[3])
positions, symbols = random_structure(1, 40, TRICLINIC)


def context_on(platform, device, chosen, **properties):
    system = make_system(symbols, TRICLINIC)
    if reorders:  # which OpenMM does for this force only
        nonbonded = openmm.NonbondedForce()
        nonbonded.setNonbondedMethod(nonbonded.CutoffPeriodic)
        nonbonded.setCutoffDistance(0.3)
        for _ in symbols:
            nonbonded.addParticle(0.0, 1.0, 0.0)
        system.addForce(nonbonded)
    seen = [symbols[k] for k in chosen]
    options = {"particles": chosen, "periodic": True, "precision": "double", "force_group": 3}
    system.addForce(create_force(model, seen, device=device, **options))
    platform = openmm.Platform.getPlatformByName(platform)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform, properties)
    context.setPositions(positions / 10.0)
    return context


errors = []
for chosen in (list(range(40)), [17, 3, 29, 8, 11, 0, 22]):
    energy, forces = energy_forces(context_on("Reference", "cpu", chosen), {3})
    contexts = [context_on("CUDA", device, chosen, Precision=precision) for device in ("cuda", "cuda:0")]
    for context in contexts + contexts:
        found = energy_forces(context, {3})
        scale = numpy.abs(forces).max()
        errors.append((abs(found[0] / energy - 1), numpy.abs(found[1] - forces).max() / scale))
    del context, contexts
try:
    context_on("CUDA", "cuda:1", [0, 1], Precision=precision)
except openmm.OpenMMException as error:
    print(error)
print(json.dumps(errors), flush=True)
"""


@pytest.mark.parametrize("reorders", [False, True], ids=["as given", "reordered"])
@pytest.mark.parametrize("precision, tolerance", [("double", 1e-9), ("mixed", 1e-9), ("single", 1e-5)])
@pytest.mark.parametrize("model", ["bpnn"], indirect=True)
def test_equals_reference(driver, plugins, model, tmp_path, precision, tolerance, reorders):
    wanted = json.dumps((str(model), precision, reorders))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, plugins / "libOpenMMCUDA.so", ROOT / "tests" / "openmm", wanted],
        env=os.environ
        | {
            "LD_LIBRARY_PATH": os.pathsep.join(map(str, (driver, OPENMM))),
            "NEARSIGHT_CUDA": "emulated",
            "OPENMM_CACHE_DIR": str(tmp_path),
            "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), *sys.path]),
            "TEST_PRECISION": precision,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    refused, errors, *launches = done.stdout.splitlines()
    assert refused == (
        "nearsight: device cuda:1 was asked for, but the Context is on GPU 0; "
        "say cuda for that of the Context"
    )
    # OpenMM wraps positions in single precision where it reorders atoms.
    tolerance = 1e-6 if reorders and precision == "mixed" else tolerance
    assert max(max(pair) for pair in json.loads(errors)) < tolerance
    counts = dict(line.split() for line in launches)
    assert counts["readPositions"] == counts["addForces"] == "8"
    assert int(counts.get("reordered", 0)) == (8 if reorders else 0)
