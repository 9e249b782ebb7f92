"""Errors of predictions: RMSE, MAE and largest, per target and per species, accumulated in double."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from rich.box import SIMPLE
from rich.table import Table

from nearsight import keys
from nearsight.data import Frame

MEV = 1000.0
UNITS = {keys.ENERGY: "meV/atom", keys.FORCES: "meV/Å", keys.VIRIAL: "meV/atom", keys.CHARGES: "me"}
UNITS |= {keys.DIPOLE: "me·Å", keys.BORN_CHARGES: "me"}
_ROUND_OFF = 1e-12
_PER_ATOM = (keys.ENERGY, keys.VIRIAL)  # divided by the number of atoms
_DETERMINED = (keys.CHARGES, keys.DIPOLE, keys.BORN_CHARGES)  # with a coefficient of determination


@dataclass
class Errors:
    """Running error statistics of one quantity, in its unit of `UNITS`."""

    count: int = 0
    absolute: float = 0.0
    square: float = 0.0
    largest: float = 0.0
    reference: float = 0.0  # sums of references and of their squares, where they are given
    reference_square: float = 0.0

    def add(self, differences: np.ndarray, references: np.ndarray | None = None) -> None:
        """Add differences prediction - reference, of any shape; with the references also R² is known."""
        values = np.abs(np.asarray(differences, dtype=np.float64))
        self.count += values.size
        self.absolute += float(values.sum())
        self.square += float((values**2).sum())
        self.largest = max(self.largest, float(values.max(initial=0.0)))
        if references is not None:
            self.reference += float(references.sum())
            self.reference_square += float((references**2).sum())

    def merge(self, other: Errors) -> None:
        """Add the values of another one."""
        self.count += other.count
        self.absolute += other.absolute
        self.square += other.square
        self.largest = max(self.largest, other.largest)
        self.reference += other.reference
        self.reference_square += other.reference_square

    @property
    def rmse(self) -> float:
        """Root mean square error; NaN without data."""
        return (self.square / self.count) ** 0.5 if self.count else float("nan")

    @property
    def mae(self) -> float:
        """Mean absolute error; NaN without data."""
        return self.absolute / self.count if self.count else float("nan")

    @property
    def r2(self) -> float | None:
        """Coefficient of determination, 1 - Σ(p - r)² / Σ(r - ⟨r⟩)²; None without references that differ."""
        spread = self.reference_square - self.reference**2 / max(1, self.count)
        return 1.0 - self.square / spread if spread > _ROUND_OFF * self.reference_square else None

    def as_dict(self) -> dict[str, float]:
        """rmse, mae, max, count, and r2 where it is known."""
        values = {"rmse": self.rmse, "mae": self.mae, "max": self.largest, "count": self.count}
        return values if self.r2 is None else values | {"r2": self.r2}


@dataclass
class Metrics:
    """Errors per target (energy and virial per atom, else components), forces also per species."""

    targets: dict[str, Errors] = field(default_factory=dict)
    species: dict[str, Errors] = field(default_factory=dict)

    def add(self, frame: Frame, prediction: Mapping[str, np.ndarray]) -> None:
        """Add one frame: labels of the frame against predictions by their names, energies with references."""
        for name in UNITS:
            if name in frame.labels and name in prediction:
                unit = MEV / len(frame) if name in _PER_ATOM else MEV
                reference = unit * np.asarray(frame.labels[name])
                difference = unit * np.asarray(prediction[name]) - reference
                errors = self.targets.setdefault(name, Errors())
                errors.add(difference, reference if name in _DETERMINED else None)
                if name == keys.FORCES:
                    self._add_species(frame.symbols, difference)

    def merge(self, other: Metrics) -> None:
        """Add the errors of another set of frames."""
        for mine, others in ((self.targets, other.targets), (self.species, other.species)):
            for name, errors in others.items():
                mine.setdefault(name, Errors()).merge(errors)

    def _add_species(self, symbols: Sequence[str], difference: np.ndarray) -> None:
        names = np.array(symbols)
        for symbol in sorted(set(symbols)):
            self.species.setdefault(symbol, Errors()).add(difference[names == symbol])

    def as_dict(self) -> dict[str, dict]:
        """Plain numbers, for JSON."""
        return {
            **{name: {"unit": UNITS[name], **errors.as_dict()} for name, errors in self.targets.items()},
            "forces_by_species": {symbol: errors.as_dict() for symbol, errors in self.species.items()},
        }


def metrics_table(title: str, sets: Mapping[str, Metrics]) -> Table:
    """One row per set and target, forces also per species."""
    table = Table(title=title, title_justify="left", box=SIMPLE)
    for column in ("set", "target", "unit"):
        table.add_column(column)
    for column in ("RMSE", "MAE", "max", "R²", "values"):
        table.add_column(column, justify="right")
    for set_name, metrics in sets.items():
        for name, errors in metrics.targets.items():
            target = f"{name} per atom" if name in _PER_ATOM else name.replace("_", " ")
            _add_row(table, set_name, target, UNITS[name], errors)
            if name == keys.FORCES and len(metrics.species) > 1:
                for symbol, species_errors in metrics.species.items():
                    _add_row(table, set_name, f"  forces on {symbol}", UNITS[name], species_errors)
    return table


def _add_row(table: Table, set_name: str, target: str, unit: str, errors: Errors) -> None:
    numbers = (f"{value:.2f}" for value in (errors.rmse, errors.mae, errors.largest))
    determined = "" if errors.r2 is None else f"{errors.r2:.4f}"
    table.add_row(set_name, target, unit, *numbers, determined, f"{errors.count:,}")
