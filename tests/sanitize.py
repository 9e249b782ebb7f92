"""`make sanitize`: the core and the C program under the address and undefined-behavior sanitizers.

Builds in build/sanitize, then evaluates random BPNN files and damaged ones with the instrumented C program.
Run as a script, not by pytest: it compiles for a minute.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "build" / "sanitize"
sys.path.insert(0, str(ROOT / "tests"))

from core.core_models import SPECIES, explicit_functions, random_box, save_bpnn  # noqa: E402

from nearsight.models import ACSFConfig  # noqa: E402


def run(*command: object, **options: object) -> subprocess.CompletedProcess:
    return subprocess.run([str(part) for part in command], **options)


def write_xyz(path: Path, structure: tuple) -> None:
    positions, species, cell = structure
    lattice = " ".join(f"{x:.17g}" for x in np.asarray(cell).ravel())
    lines = [f"{SPECIES[s]} {x:.17g} {y:.17g} {z:.17g}" for s, (x, y, z) in zip(species, positions)]
    path.write_text("\n".join([str(len(lines)), f'Lattice="{lattice}" pbc="T T F"', *lines, ""]))


def main() -> None:
    build_options = ["-DNEARSIGHT_SANITIZE=address,undefined", "-DCMAKE_BUILD_TYPE=RelWithDebInfo"]
    off = [f"-DNEARSIGHT_{part}=OFF" for part in ("PYTHON", "TORCH", "LAMMPS", "OPENMM", "CUDA")]
    python = f"-DPython_EXECUTABLE={sys.executable}"
    run("cmake", "-S", ROOT, "-B", BUILD, "-G", "Ninja", python, *build_options, *off, check=True)
    run("cmake", "--build", BUILD, check=True)
    program = next(BUILD.rglob("nearsight-energy-forces"))
    failures = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = [
            save_bpnn(folder / "medium.pt", descriptor=ACSFConfig(size="medium")),
            save_bpnn(folder / "states.pt", states=2),
            save_bpnn(
                folder / "kinds.pt",
                descriptor=ACSFConfig(symmetry_functions=explicit_functions(), cutoff_function="cos"),
            ),
        ]
        content = models[0].read_bytes()
        for size in range(0, len(content), max(1, len(content) // 40)):
            damaged = folder / f"cut{size}.pt"
            damaged.write_bytes(content[:size])
            models.append(damaged)
        write_xyz(folder / "frame.xyz", random_box(0, n=60, edge=9.0))
        for model in models:
            for precision in ("mixed", "double"):
                done = run(
                    program,
                    model,
                    folder / "frame.xyz",
                    precision,
                    capture_output=True,
                    text=True,
                    env=os.environ | {"UBSAN_OPTIONS": "print_stacktrace=1"},
                )
                expected = model.name.startswith("cut")
                bad = (
                    "Sanitizer" in done.stderr
                    or "runtime error" in done.stderr
                    or (done.returncode != 0) != expected
                )
                failures += bad
                print(f"{model.name:12} {precision:7} {'FAILED' if bad else 'ok'}")
                if bad:
                    print(done.stderr)
    raise SystemExit(1 if failures else 0)


if __name__ == "__main__":
    main()
