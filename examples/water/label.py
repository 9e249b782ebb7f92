"""Label frames with GFN2-xTB through tblite: energy, forces, virial, Mulliken charges.

Every finished frame is appended to the output file at once and frames already there are skipped, so
the run may be stopped at any time and started again with the same command. Frames for which the
self-consistent cycle fails are named in OUTPUT.failed and skipped from then on.

Sign and units: energy in eV, forces in eV/Å, virial = -dE/dstrain in eV (= -stress * volume with ASE's
stress), charges in e.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # frames run side by side, so one thread each is fastest

import argparse
import multiprocessing
import time
from pathlib import Path

import ase
import numpy as np
from ase.io import read
from ase.units import Bohr, Hartree
from frames import append_frame, format_frame, keep_complete
from tblite.interface import Calculator

METHOD = "GFN2-xTB"
ACCURACY = 0.01  # scales tblite's SCF thresholds; at the default of 1 forces are off by 1e-4 eV/Å
UNPAIRED = {"H": 1, "O": 2}  # ground states of the free atoms: doublet H, triplet O


def compute(atoms: ase.Atoms, uhf: int = 0) -> dict[str, np.ndarray]:
    """Energy, forces, virial (None without a cell) and charges of one structure, from a fresh guess."""
    periodic = bool(atoms.pbc.all())
    calculator = Calculator(
        METHOD,
        atoms.numbers,
        atoms.positions / Bohr,
        uhf=uhf,
        lattice=atoms.cell.array / Bohr if periodic else None,
        periodic=np.array([True] * 3) if periodic else None,
    )
    calculator.set("accuracy", ACCURACY)
    calculator.set("verbosity", 0)
    result = calculator.singlepoint()
    # tblite's "virial" is +dE/dstrain.
    strain_derivative = np.asarray(result["virial"]) * Hartree
    return {
        "energy": float(result["energy"]) * Hartree,
        "forces": -np.asarray(result["gradient"]) * Hartree / Bohr,
        "virial": -0.5 * (strain_derivative + strain_derivative.T) if periodic else None,
        "charges": np.atleast_1d(result["charges"]),
    }


def label(atoms: ase.Atoms) -> tuple[str, str | None, str]:
    """(frame_id, labelled text or None, error message): what one worker hands back."""
    info = dict(atoms.info)
    frame_id = str(info["frame_id"])
    try:
        labels = compute(atoms)
    except RuntimeError as error:
        return frame_id, None, str(error)
    if not all(np.isfinite(labels[key]).all() for key in ("energy", "forces", "virial", "charges")):
        return frame_id, None, "not finite"
    info |= {"REF_energy": labels["energy"], "REF_virial": labels["virial"]}
    symbols = atoms.get_chemical_symbols()
    arrays = (labels["forces"], labels["charges"])
    return frame_id, format_frame(symbols, atoms.positions, atoms.cell.array, info, *arrays), ""


def write_isolated_atoms(path: Path) -> None:
    """One frame per element, for the reference energies E0 of a model."""
    text = ""
    for symbol, uhf in UNPAIRED.items():
        atom = ase.Atoms(symbol)
        labels = compute(atom, uhf=uhf)
        info = {
            "frame_id": f"atom-{symbol}",
            "config_type": "IsolatedAtom",
            "round": 0,
            "unpaired_electrons": uhf,
            "REF_energy": labels["energy"],
        }
        text += format_frame([symbol], atom.positions, None, info, np.zeros((1, 3)), np.zeros(1))
        print(f"{symbol}: {labels['energy']:.8f} eV, {uhf} unpaired electron(s)")
    path.write_text(text, encoding="utf-8")


def progress(done: int, total: int, failed: int, started: float, fresh: int) -> None:
    """A bar with the time left, judged from the frames labelled by this call."""
    pace = (time.monotonic() - started) / max(fresh, 1)
    bar = "#" * (30 * done // max(total, 1))
    left = pace * (total - done) / 60
    print(
        f"\r[{bar:<30}] {done}/{total}  {pace:.1f} s/frame  {left:.1f} min left  {failed} failed",
        end="",
        flush=True,
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", type=Path, nargs="?", help="extended XYZ frames, each with a frame_id")
    parser.add_argument("output", type=Path, nargs="?", help="labelled frames, appended as they finish")
    parser.add_argument("--jobs", type=int, default=1, help="processes, one core each")
    parser.add_argument("--isolated-atoms", type=Path, metavar="FILE", help="also label single H and O atoms")
    options = parser.parse_args()
    if (options.input is None) != (options.output is None):
        parser.error("give both an input and an output file")
    if options.input is None and options.isolated_atoms is None:
        parser.error("nothing to do: give input and output, --isolated-atoms, or all three")
    return options


def main() -> None:
    options = parse_arguments()
    if options.isolated_atoms is not None:
        write_isolated_atoms(options.isolated_atoms)
    if options.input is None:
        return
    failures = options.output.with_name(options.output.name + ".failed")
    failed = {line.split()[0] for line in failures.read_text().splitlines()} if failures.exists() else set()
    images = read(options.input, ":")
    done = keep_complete(options.output)
    todo = [a for a in images if a.info["frame_id"] not in done | failed]
    started, total, finished = time.monotonic(), len(images), len(images) - len(todo)
    # spawn: a forked child would inherit the parent's OpenMP state.
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        for fresh, (frame_id, text, error) in enumerate(pool.imap_unordered(label, todo), start=1):
            if text is None:
                failed.add(frame_id)
                with failures.open("a", encoding="utf-8") as handle:
                    handle.write(f"{frame_id} {error.splitlines()[0] if error else ''}\n")
            else:
                append_frame(options.output, text)
            progress(finished + fresh, total, len(failed), started, fresh)
    print(f"\n{options.output}: {total - len(failed)} labelled, {len(failed)} failed")


if __name__ == "__main__":
    main()
