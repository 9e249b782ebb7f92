"""Pictures of a run: loss and errors per epoch, and parity of predictions with the reference.

Figures are made without pyplot, so that no display and no global state are involved.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nearsight import keys
from nearsight.data import Frame, ReferenceEnergies
from nearsight.training.metrics import MEV, UNITS

COLORS = {"training": "#4477aa", "validation": "#cc3311", keys.ENERGY: "#228833"}
COLORS |= {keys.FORCES: "#aa3377", keys.VIRIAL: "#ccbb44", keys.CHARGES: "#66ccee"}
COLORS |= {keys.DIPOLE: "#ee7733", keys.BORN_CHARGES: "#0077bb"}
_DPI = 150
_DENSE = 1000  # points; above, they are colored by density
_DRAWN = 40_000  # points; above, a random part is drawn (errors are of all)
_BINS = 120

# Quantity → axis label, unit.
_PARITY = {
    keys.ENERGY: ("(E − ΣE0) / atom", "eV"),
    keys.FORCES: ("force component", "eV/Å"),
    keys.VIRIAL: ("virial component / atom", "eV"),
    keys.CHARGES: ("charge", "e"),
    keys.DIPOLE: ("dipole component", "e·Å"),
    keys.BORN_CHARGES: ("Born charge component", "e"),
}


def new_figure(width: float = 6.0, height: float = 4.5, **subplots: Any) -> tuple[Figure, Any]:
    """A figure with axes in the common style; `subplots` as of Figure.subplots."""
    figure = Figure(figsize=(width, height), layout="constrained", dpi=_DPI)
    axes = figure.subplots(**subplots)
    for ax in np.atleast_1d(axes).ravel():
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25, linewidth=0.5)
        ax.set_axisbelow(True)
    return figure, axes


def plot_history(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """Loss of training and validation set, and validation errors, per epoch; rows of metrics.csv."""
    figure, (left, right) = new_figure(10.0, 4.0, ncols=2)
    epochs = [row["epoch"] for row in rows]
    marker = "o" if len(rows) < 30 else None
    for name in ("training", "validation"):
        values = [row[f"{name}_loss"] for row in rows]
        left.plot(epochs, values, label=name, color=COLORS[name], marker=marker, markersize=3)
    left.set(xlabel="epoch", ylabel="loss", yscale="log", title="Loss")
    for name, unit in UNITS.items():
        values = [row.get(f"{name}_rmse", np.nan) for row in rows]
        if not np.isnan(values).all():
            label = f"{name} ({unit}), last {short(values[-1])}"
            right.plot(epochs, values, label=label, color=COLORS[name], marker=marker, markersize=3)
    right.set(xlabel="epoch", ylabel="RMSE, units in the legend", yscale="log", title="Validation errors")
    for ax in (left, right):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.legend(frameon=False)
    _save(figure, path)


def plot_parity(
    folder: Path,
    frames: Sequence[Frame],
    predictions: Sequence[Mapping[str, Any]],
    reference: ReferenceEnergies,
    title: str,
) -> list[Path]:
    """One picture parity_<label>.png for every label that the frames have; returns their paths."""
    paths = []
    for name, (label, unit) in _PARITY.items():
        pairs = [
            (
                _flat(name, frame, frame.labels[name], reference),
                _flat(name, frame, prediction[name], reference),
            )
            for frame, prediction in zip(frames, predictions)
            if name in frame.labels and name in prediction
        ]
        if pairs:
            expected, predicted = (np.concatenate(values) for values in zip(*pairs))
            figure = _parity_figure(expected, predicted, label, unit, f"{title}: {name}", UNITS[name])
            paths.append(folder / f"parity_{name}.png")
            _save(figure, paths[-1])
    return paths


def _flat(name: str, frame: Frame, value: Any, reference: ReferenceEnergies) -> np.ndarray:
    if name == keys.ENERGY:
        return np.array([(value - reference.total(frame.symbols)) / len(frame)])
    return np.ravel(value) / (len(frame) if name == keys.VIRIAL else 1)


def _parity_figure(
    expected: np.ndarray, predicted: np.ndarray, label: str, unit: str, title: str, error_unit: str
) -> Figure:
    errors = MEV * (predicted - expected)
    figure, (top, bottom) = new_figure(5.2, 6.4, nrows=2, sharex=True, gridspec_kw={"height_ratios": [3, 1]})
    rmse, mae = np.sqrt(np.mean(errors**2)), np.mean(np.abs(errors))
    top.set_title(
        f"{title}\nRMSE {short(rmse)}, MAE {short(mae)} {error_unit}, {expected.size:,} values", fontsize=11
    )
    limits = _padded([*expected, *predicted])
    top.plot(limits, limits, color="0.4", linewidth=0.8, zorder=1)
    top.set(xlim=limits, ylim=limits, ylabel=f"predicted {label}, {unit}")
    bottom.axhline(0, color="0.4", linewidth=0.8, zorder=1)
    bottom.set(xlabel=f"reference {label}, {unit}", ylabel=f"error, {error_unit}")
    _scatter(top, bottom, expected, predicted, errors)
    return figure


def _scatter(
    top: Axes, bottom: Axes, expected: np.ndarray, predicted: np.ndarray, errors: np.ndarray
) -> None:
    """Points in both panels; many points are colored by their density in the (reference, error) plane."""
    style: dict[str, Any] = {"color": COLORS["training"], "alpha": 0.8}
    if expected.size > _DENSE:
        chosen = np.random.default_rng(0).permutation(expected.size)[:_DRAWN]
        expected, predicted, errors = expected[chosen], predicted[chosen], errors[chosen]
        density = _density(expected, errors)
        order = np.argsort(density)  # the dense ones on top
        expected, predicted, errors = expected[order], predicted[order], errors[order]
        style = {"c": density[order], "cmap": "viridis", "norm": LogNorm()}
    size = 10 if expected.size <= _DENSE else 4
    for ax, values in ((top, predicted), (bottom, errors)):
        ax.scatter(expected, values, s=size, linewidths=0, rasterized=True, zorder=2, **style)


def _density(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    counts, x_edges, y_edges = np.histogram2d(x, y, bins=_BINS)
    i = np.clip(np.digitize(x, x_edges) - 1, 0, _BINS - 1)
    j = np.clip(np.digitize(y, y_edges) - 1, 0, _BINS - 1)
    return counts[i, j]


def short(value: float) -> str:
    """Three digits, without an exponent for large numbers."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _padded(values: Iterable[float]) -> tuple[float, float]:
    low, high = np.min(values), np.max(values)
    margin = 0.05 * (high - low) or 0.1
    return low - margin, high + margin


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
