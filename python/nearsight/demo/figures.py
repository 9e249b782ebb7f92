"""Plots of the demo."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from nearsight.demo.dynamics import LammpsRun
from nearsight.training.plots import new_figure


def plot_energy(run: LammpsRun, path: Path) -> None:
    """Plot the total energy in NVE about its mean, with the kinetic part's temperature for scale."""
    figure, (top, bottom) = new_figure(6.0, 5.0, nrows=2, sharex=True)
    top.plot(run.time_ps, 1e3 * (run.energy - run.energy.mean()), lw=0.7)
    top.set_ylabel("E − ⟨E⟩ (meV/atom)")
    top.set_title(f"NVE, {len(run.last)} atoms, LAMMPS on 2 ranks, mixed precision")
    bottom.plot(run.time_ps, run.temperature, lw=0.7, color="tab:red")
    bottom.set_ylabel("temperature (K)")
    bottom.set_xlabel("time (ps)")
    figure.savefig(path)


def plot_rdf(r: np.ndarray, curves: Mapping[str, np.ndarray], path: Path) -> None:
    """Plot g_OO(r) of several engines at one state point."""
    figure, axes = new_figure(6.0, 4.0)
    for (name, g), style in zip(curves.items(), ("-", "--", ":")):
        axes.plot(r, g, style, label=name)
    axes.axhline(1.0, color="0.7", lw=0.8, zorder=0)
    axes.set_xlabel("r (Å)")
    axes.set_ylabel("g$_{OO}$(r)")
    axes.set_title("Liquid water with the demo's model, 300 K, 1.0 g/cm³")
    axes.legend()
    figure.savefig(path)
