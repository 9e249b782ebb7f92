"""Models with electrostatics in LAMMPS: against the core in one call, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from lammps_harness import ENERGY, LENGTH, PRESSURE_FACTOR, run_script, write_data
from lammps_systems import cluster_in_a_corner, grid

from nearsight import Potential
from nearsight.export import save_model
from nearsight.models import BPNNConfig, LongRangeConfig, MACEConfig, build_model

NETWORKS = BPNNConfig(cutoff=4.0, hidden=[8])
MESSAGES = MACEConfig(cutoff=3.6, channels=4, num_interactions=2, l_max=2, correlation=2)
ONE_LAYER = MACEConfig(cutoff=3.6, channels=4, l_max=2, correlation=2, zbl=True)
MODELS = {
    "fixed": (NETWORKS, {"charges": "fixed", "values": {"H": 0.4, "O": -0.8}}),
    "environment": (NETWORKS, {"charges": "environment", "weighted": True}),
    "latent": (NETWORKS, {"charges": "latent", "channels": 2}),
    "mace": (MESSAGES, {"charges": "environment", "weighted": True}),
    "one_layer": (ONE_LAYER, {"charges": "latent"}),
}


@pytest.fixture(scope="module")
def charged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Model files with charges, by the kind of these."""
    folder = tmp_path_factory.mktemp("charges")
    for kind, (config, long_range) in MODELS.items():
        torch.manual_seed(3)
        model = build_model(config, ["H", "O"], LongRangeConfig(**long_range))
        (model.output_scale if config is NETWORKS else model.scale[1:]).uniform_(0.5, 1.5)
        save_model(
            folder / f"{kind}.pt",
            model,
            reference_energies={"H": -13.6, "O": -2043.0},
            reference_energies_source="given",
            provenance={},
        )
    return {kind: folder / f"{kind}.pt" for kind in MODELS}


def script(
    folder: Path, atoms: Atoms, pair: list[str], units: str = "metal", fields: str = "", more=()
) -> list[str]:
    write_data(folder / "data.0", atoms, ["O", "H"], units)
    pressure = " ".join(f"c_pressure[{k}]" for k in range(1, 7))
    columns = " ".join(f"f_q[{k}]" for k in range(1, len(fields.split()) // 2 + 1))
    return [
        f"units {units}",
        "atom_style atomic",
        "boundary " + " ".join("p" if p else "f" for p in atoms.pbc),
        "read_data data.0",
        f"neighbor {0.5 / LENGTH[units]!r} bin",
        *pair,
        *([f"fix q all pair 1 mlp {fields}"] if fields else []),
        "compute pressure all pressure NULL pair",
        "compute parts all pair mlp",
        "compute energy all pe/atom pair",
        "compute sum all reduce sum c_energy",
        f"thermo_style custom step pe ecoul evdwl vol c_sum {pressure}",
        "thermo_modify format float %.17g norm no",
        *more,
        "run 0",
        f"write_dump all custom dump.0 id fx fy fz {columns} modify sort id format float %.17g",
        "print DONE",
    ]


def run(folder: Path, lines: list[str], ranks: int = 1) -> tuple[list[float], np.ndarray]:
    """Thermo values after the step, and the rows of the dump without ids."""
    done = run_script(folder, lines, ranks)
    assert done.code == 0, done.output[-3000:]
    rows = [line.split() for line in done.output.splitlines()]
    number = next(k for k, row in enumerate(rows) if row[:2] == ["Step", "PotEng"])
    return [float(x) for x in rows[number + 1][1:]], np.loadtxt(folder / "dump.0", skiprows=9)[:, 1:]


def pair(path: Path, words: str = "precision double") -> list[str]:
    return [f"pair_style mlp {words}", f"pair_coeff * * {path} O H"]


def total(atoms: Atoms, kind: str) -> float:
    if kind != "fixed":
        return -1.5
    return sum({"H": 0.4, "O": -0.8}[symbol] for symbol in atoms.symbols)


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * np.abs(expected).max())


FIELD = {"si": 1e-10, "electron": 1e-8}  # LAMMPS' units in V/Å, where they are others
CRYSTAL, CLUSTER, SLAB = True, False, (True, True, False)


BALANCED = ("comm_style tiled", "balance 1.0 rcb")


@pytest.mark.parametrize(
    ("kind", "pbc", "units", "ranks", "more"),
    [
        *((kind, pbc, "metal", 1, ()) for kind in MODELS for pbc in (CRYSTAL, CLUSTER, SLAB)),
        ("latent", CRYSTAL, "real", 1, ()),
        *(("environment", pbc, "metal", ranks, ()) for pbc in (CRYSTAL, CLUSTER) for ranks in (2, 3)),
        *(("environment", SLAB, "metal", ranks, ()) for ranks in (4, 6)),
        ("environment", CRYSTAL, "metal", 6, BALANCED),
        ("latent", CRYSTAL, "metal", 6, ()),
        ("fixed", CRYSTAL, "metal", 4, BALANCED),
        *(("mace", pbc, "metal", ranks, ()) for pbc in (CRYSTAL, CLUSTER) for ranks in (2, 3)),
        ("mace", CRYSTAL, "metal", 4, BALANCED),
        ("one_layer", SLAB, "metal", 3, ()),
    ],
)
def test_everything_equals_the_core(charged, tmp_path, kind, pbc, units, ranks, more):
    compare(charged, tmp_path, grid((3, 2, 3), pbc=pbc, seed=4), kind, units, ranks, more)


@pytest.mark.parametrize("kind", ["environment", "mace"])
def test_ranks_without_atoms(charged, tmp_path, kind):
    compare(charged, tmp_path, cluster_in_a_corner(), kind, "metal", 4, ())


@pytest.mark.parametrize("ranks", [1, 2])
def test_every_rank_has_a_halo(charged, tmp_path, ranks):
    compare(charged, tmp_path, grid((3, 2, 3), seed=4), "mace", "metal", ranks, (), "messages halo")


def compare(charged, tmp_path, atoms, kind, units, ranks, more, words=""):
    """LAMMPS and the core in one call."""
    charge = total(atoms, kind)
    channels = 2 if kind == "latent" else 1
    fields = " ".join(f"{name}{c or ''} 1" for c in (0, 2)[:channels] for name in ("charge", "potential"))
    words = f"precision double charge {charge!r} {words}"
    lines = script(tmp_path, atoms, pair(charged[kind], words), units, fields, more)
    thermo, rows = run(tmp_path, lines, ranks)
    expected = Potential(charged[kind]).compute(atoms.positions, atoms.symbols, atoms.cell, atoms.pbc, charge)
    energy, force = ENERGY[units], ENERGY[units] / LENGTH[units]
    assert thermo[0] * energy == pytest.approx(expected.energy, rel=1e-11)
    assert thermo[1] * energy == pytest.approx(expected.electrostatic_energy, rel=1e-10)
    assert (thermo[1] + thermo[2]) == pytest.approx(thermo[0], rel=1e-13)
    assert thermo[4] == pytest.approx(thermo[0], rel=1e-12)
    virial = np.array(thermo[5:]) * thermo[3] / PRESSURE_FACTOR[units] * energy
    scale = np.abs(expected.virial).max()
    np.testing.assert_allclose(
        virial, expected.virial[(0, 1, 2, 0, 0, 1), (0, 1, 2, 1, 2, 2)], atol=1e-10 * scale
    )
    np.testing.assert_allclose(
        rows[:, :3] * force, expected.forces, atol=1e-10 * np.abs(expected.forces).max()
    )
    np.testing.assert_allclose(rows[:, 3::2], expected.charges, atol=1e-10)
    np.testing.assert_allclose(
        rows[:, 4::2] * energy, expected.potentials, atol=1e-10 * np.abs(expected.potentials).max()
    )


@pytest.mark.parametrize(
    ("kind", "pbc", "units", "ranks"),
    [
        ("environment", CLUSTER, "metal", 1),
        ("latent", CLUSTER, "metal", 3),
        ("environment", SLAB, "metal", 2),
        ("latent", CLUSTER, "si", 1),
        ("environment", CLUSTER, "electron", 1),
        ("fixed", CRYSTAL, "real", 2),
        ("mace", CLUSTER, "metal", 2),
        ("one_layer", SLAB, "metal", 1),
    ],
)
def test_a_field(charged, tmp_path, kind, pbc, units, ranks):
    """In LAMMPS' unit; of a crystal with atoms in other cells, whose fixed charges have done work."""
    atoms = grid((3, 2, 3), pbc=pbc, seed=4)
    field = np.array([0.0, 0.0, 0.4] if pbc == SLAB else [0.3, -0.2, 0.4])  # V/Å
    charge, words = total(atoms, kind), " ".join(repr(float(x)) for x in field / FIELD.get(units, 1.0))
    pair_style = pair(charged[kind], f"precision double charge {charge!r} efield {words}")
    lines, positions = script(tmp_path, atoms, pair_style, units), atoms.positions.copy()
    if pbc is CRYSTAL:
        lines.insert(lines.index("run 0"), "set atom 5 image 1 -2 0")
        positions[4] += np.array([1, -2, 0]) @ atoms.cell
    thermo, rows = run(tmp_path, lines, ranks)
    expected = Potential(charged[kind]).compute(positions, atoms.symbols, atoms.cell, pbc, charge, field)
    energy, force = ENERGY[units], ENERGY[units] / LENGTH[units]
    assert thermo[0] * energy == pytest.approx(expected.energy, rel=1e-11)
    assert thermo[1] * energy == pytest.approx(expected.electrostatic_energy, rel=1e-9)
    assert thermo[4] == pytest.approx(thermo[0], rel=1e-12)
    assert_close(rows[:, :3] * force, expected.forces)


def test_energy_is_conserved(charged, tmp_path):
    """200 steps with the frozen mesh: the total energy changes by less than 1e-3 of the kinetic one."""
    atoms = grid((4, 4, 3), spacing=2.6, seed=5)
    more = ["velocity all create 300 1", "timestep 0.0002", "fix nve all nve", "thermo 20",
            "thermo_style custom step etotal ke ecoul", "thermo_modify format float %.12g norm no",
            "run 200"]  # fmt: skip
    done = run_script(tmp_path, script(tmp_path, atoms, pair(charged["environment"]), more=more)[:-3])
    assert done.code == 0, done.output[-2000:]
    rows = [line.split() for line in done.output.splitlines()]
    values = np.array([[float(x) for x in row] for row in rows if len(row) == 4 and row[0].isdigit()])
    assert len(values) >= 11
    assert np.ptp(values[:, 1]) < 1e-3 * np.ptp(values[:, 2])


SUMMED = ("compute t all reduce sum c_s[1]", "thermo_style custom step c_t")


def fails(folder: Path, message: str, lines: list[str], ranks: int = 1) -> None:
    done = run_script(folder, lines, ranks)
    assert done.code != 0, done.output
    assert message in " ".join(done.output.split()), done.output[-2000:]


@pytest.mark.parametrize(
    ("words", "more", "message"),
    [
        ("charge", (), "'charge' takes a number, the total charge in e, and found nothing"),
        ("charge much", (), "'charge' takes a number, the total charge in e, and found much"),
        ("efield 1 2", (), "the electric field in LAMMPS' units, and found nothing"),
        ("efield 1 2 z", (), "the electric field in LAMMPS' units, and found z"),
        ("efield 1 0 0", (), "the electric field has a component along a periodic direction"),
        ("", ("kspace_style ewald 1e-4",), "KSpace style is incompatible with Pair style"),  # LAMMPS' own
        ("", ("compute s all stress/atom NULL", *SUMMED), "stress/atom and centroid/stress/atom are not "
         "defined for the electrostatics of"),
        ("", ("compute s all centroid/stress/atom NULL", *SUMMED), "use compute pressure"),
        ("", ("fix p all pair 1 mlp charge2 0",), "cannot extract property charge2"),
    ],
)  # fmt: skip
def test_what_is_refused(charged, tmp_path, words, more, message):
    atoms = grid((3, 3, 3), spacing=2.6, seed=4)
    lines = script(tmp_path, atoms, pair(charged["environment"], words), more=more)
    fails(tmp_path, message, with_charges(tmp_path, lines) if "kspace" in " ".join(more) else lines)


def test_a_kspace_style_of_another_pair_style(charged, tmp_path):
    styles = [
        "pair_style hybrid/overlay mlp coul/long 6.0",
        f"pair_coeff * * mlp {charged['environment']} O H",
        "pair_coeff * * coul/long",
        "kspace_style ewald 1e-4",
    ]
    lines = with_charges(tmp_path, script(tmp_path, grid((3, 3, 3), spacing=2.6, seed=4), styles))
    fails(tmp_path, "so that a kspace_style would count it twice; remove the kspace_style", lines)


@pytest.mark.parametrize(("elements", "where", "warned"), [("O H", "* *", True), ("O NULL", "* 2", False)])
def test_a_coulomb_pair_style_beside_it(charged, tmp_path, elements, where, warned):
    """It may serve atoms that the model does not see; on others it counts twice."""
    styles = [
        "pair_style hybrid/overlay mlp precision double coul/cut 6.0",
        f"pair_coeff * * mlp {charged['environment']} {elements}",
        f"pair_coeff {where} coul/cut",
    ]
    lines = with_charges(tmp_path, script(tmp_path, grid((3, 3, 3), spacing=2.6, seed=4), styles))
    done = run_script(tmp_path, lines, 2)
    assert done.code == 0, done.output[-2000:]
    message = (
        "has its own electrostatics, and pair_style coul/cut beside it counts the Coulomb interaction of"
    )
    assert (message in " ".join(done.output.split())) is warned


TIMES = re.compile(
    r"electrostatics (\S+) s, of these communication with waiting (\S+) s, Fourier transforms (\S+) s, "
    r"pairs (\S+) s, charges to the mesh and back (\S+) s \(mean over 2 ranks\)"
)


@pytest.mark.parametrize("other", ["", "lj/cut 4.0"])
def test_times_of_each_run_are_in_the_log(charged, tmp_path, other):
    styles = pair(charged["environment"])
    if other:
        style, coefficients = styles[0].split(" ", 1)[1], styles[1].replace("* *", "* * mlp")
        styles = [f"pair_style hybrid/overlay {style} {other}", coefficients, "pair_coeff * * lj/cut 0 1"]
    lines = script(tmp_path, grid((3, 3, 3), spacing=2.6, seed=4), styles, more=["run 20"])
    done = run_script(tmp_path, lines, 2)
    assert done.code == 0, done.output[-2000:]
    found = [[float(x) for x in row] for row in TIMES.findall(" ".join(done.output.split()))]
    assert len(found) == 2
    for total, *parts in found:
        assert min(parts) > 0 and sum(parts) < total
    assert found[0][0] > found[1][0]  # twenty steps, then none


def with_charges(folder: Path, lines: list[str]) -> list[str]:
    """The script with atoms that have charges, as a kspace_style wants them."""
    head, rows = (folder / "data.0").read_text().split("Atoms # atomic\n\n")
    rows = [line.split() for line in rows.splitlines()]
    charged = "".join(f"{number} {kind} 0.1 {' '.join(x)}\n" for number, kind, *x in rows)
    (folder / "data.0").write_text(f"{head}Atoms # charge\n\n{charged}")
    return [line.replace("atom_style atomic", "atom_style charge") for line in lines]


def test_a_charge_without_electrostatics(models, tmp_path):
    for words in ("charge 1", "efield 0 0 1"):
        lines = script(tmp_path, grid((3, 3, 3), seed=4), pair(models["bpnn"], words))
        fails(tmp_path, f"'{words.split()[0]}' is for models with electrostatics, and", lines)


def test_fixed_charges_that_do_not_add_up(charged, tmp_path):
    lines = script(tmp_path, grid((3, 3, 3), seed=4), pair(charged["fixed"]))
    fails(tmp_path, "but a periodic system is taken to have 0 e: check the atoms, or give that sum", lines)


def test_restart_files_keep_the_charge(charged, tmp_path):
    atoms = grid((3, 3, 3), seed=4)
    atoms.pbc = False
    words = "precision double charge -1.25 efield 0.1 -0.2 0.3"
    lines = script(tmp_path, atoms, pair(charged["environment"], words))
    first, _ = run(tmp_path, [*lines[:-1], "write_restart model.restart", "print DONE"])
    again = ["read_restart model.restart", *lines[7:]]
    second, _ = run(tmp_path, again)
    assert second[0] == pytest.approx(first[0], rel=1e-13)
    neutral, _ = run(tmp_path, script(tmp_path, atoms, pair(charged["environment"])))
    assert abs(neutral[0] - first[0]) > 0.01
