"""`make sanitize`: the core and the C program under the address and undefined-behavior sanitizers.

Builds in build/sanitize, then evaluates random models of every native architecture, with and without charges,
equilibrated ones among them, also within molecules, of dispersion, and damaged files with the instrumented C
program, on the CPU and with the emulated CUDA kernels. Run as a script, not by pytest: it takes long.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "build" / "sanitize"
sys.path.insert(0, str(ROOT / "tests"))

from core.charge_models import MACE_CONFIGS, random_model  # noqa: E402
from core.core_models import (  # noqa: E402
    REFERENCE_ENERGIES,
    SPECIES,
    explicit_functions,
    random_box,
    save_bpnn,
)
from core.equilibrated_files import equilibrated  # noqa: E402
from dispersion_for_tests import record_of  # noqa: E402

from nearsight.export import save_model  # noqa: E402
from nearsight.models import ACSFConfig, ANIConfig, NoLocalEnergy, SOAPConfig  # noqa: E402

PERIODIC = {"slab": "T T F", "crystal": "T T T"}
PRECISIONS, DEVICES = ("mixed", "double"), ("cpu", "cuda")


def run(*command: object, **options: object) -> subprocess.CompletedProcess:
    return subprocess.run([str(part) for part in command], **options)


def write_xyz(path: Path, structure: tuple, pbc: str, molecules: int = 0) -> Path:
    """With so many molecules, to which the atoms belong in turn; 0: none."""
    positions, species, cell = structure
    lattice = " ".join(f"{x:.17g}" for x in np.asarray(cell).ravel())
    lines = [f"{SPECIES[s]} {x:.17g} {y:.17g} {z:.17g}" for s, (x, y, z) in zip(species, positions)]
    comment = f'Lattice="{lattice}" pbc="{pbc}"'
    if molecules:
        comment += " Properties=species:S:1:pos:R:3:molecules:I:1"
        lines = [f"{line} {number % molecules}" for number, line in enumerate(lines)]
    path.write_text("\n".join([str(len(lines)), comment, *lines, ""]))
    return path


def save_charged(path: Path, kind: str, architecture: str) -> Path:
    source = {"reference_energies": REFERENCE_ENERGIES, "reference_energies_source": "given"}
    save_model(path, random_model(kind, architecture=architecture), **source, provenance={})
    return path


def save_dispersion(path: Path) -> Path:
    source = {"reference_energies": REFERENCE_ENERGIES, "reference_energies_source": "given"}
    save_model(path, NoLocalEnergy(SPECIES), **source, provenance={}, dispersion=record_of(SPECIES))
    return path


def build() -> Path:
    """Return the program."""
    build_options = [
        "-DNEARSIGHT_SANITIZE=address,undefined",
        "-DCMAKE_BUILD_TYPE=Debug",
        "-DCMAKE_CXX_FLAGS_DEBUG=-O1 -g1",
    ]
    off = [f"-DNEARSIGHT_{part}=OFF" for part in ("PYTHON", "TORCH", "LAMMPS", "OPENMM", "CUDA")]
    python = f"-DPython_EXECUTABLE={sys.executable}"
    run("cmake", "-S", ROOT, "-B", BUILD, "-G", "Ninja", python, *build_options, *off, check=True)
    run("cmake", "--build", BUILD, check=True)
    return next(BUILD.rglob("nearsight-energy-forces"))


def save_models(folder: Path) -> list[Path]:
    """Of every architecture."""
    kinds = ACSFConfig(symmetry_functions=explicit_functions(), cutoff_function="cos")
    return [
        save_bpnn(folder / "medium.pt", descriptor=ACSFConfig(size="medium")),
        save_bpnn(folder / "states.pt", states=2),
        save_bpnn(folder / "kinds.pt", descriptor=kinds),
        save_bpnn(folder / "ani.pt", descriptor=ANIConfig()),
        save_bpnn(folder / "soap.pt", descriptor=SOAPConfig()),
        save_bpnn(folder / "members.pt", members=3),
        save_charged(folder / "latent.pt", "latent", "bpnn"),
        equilibrated(folder, "equilibrated")[1],
        save_dispersion(folder / "dispersion.pt"),
        *(save_charged(folder / f"{name}.pt", "environment", name) for name in MACE_CONFIGS),
    ]


def damage(model: Path) -> list[Path]:
    """Files that end too early."""
    content, damaged = model.read_bytes(), []
    for size in range(0, len(content), max(1, len(content) // 40)):
        damaged.append(model.with_name(f"cut{size}.pt"))
        damaged[-1].write_bytes(content[:size])
    return damaged


def is_clean(program: Path, model: Path, frame: Path, precision: str, device: str) -> bool:
    """Evaluate, and print what came of it."""
    words = {"UBSAN_OPTIONS": "print_stacktrace=1", "NEARSIGHT_CUDA": "emulated"}
    command = (program, model, frame, precision, device)
    done = run(*command, capture_output=True, text=True, env=os.environ | words)
    refused = model.name.startswith("cut")
    found = "Sanitizer" in done.stderr or "runtime error" in done.stderr
    bad = found or (done.returncode != 0) != refused
    print(f"{model.name:24} {frame.stem:12} {precision:7} {device:5} {'FAILED' if bad else 'ok'}", flush=True)
    if bad:
        print(done.stderr)
    return not bad


def main() -> None:
    program = build()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = save_models(folder)
        box = random_box(2, n=60, edge=9.0)  # of others some random models have forces beyond all bounds
        frames = [write_xyz(folder / f"{name}.xyz", box, pbc) for name, pbc in PERIODIC.items()]
        kept = [write_xyz(folder / f"{name}_kept.xyz", box, pbc, 7) for name, pbc in PERIODIC.items()]
        charged = [model for model in models if model.stem in ("equilibrated", "latent")]
        cases = [
            *itertools.product(models, frames, PRECISIONS, DEVICES),
            *itertools.product(charged, kept, PRECISIONS, DEVICES),
            *itertools.product(damage(models[0]), frames[:1], PRECISIONS[:1], DEVICES[:1]),
        ]
        failures = [case for case in cases if not is_clean(program, *case)]
    print(f"{len(cases)} evaluations, {len(failures)} failed")
    raise SystemExit(1 if failures else 0)


if __name__ == "__main__":
    main()
