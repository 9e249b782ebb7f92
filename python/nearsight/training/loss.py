"""The loss.

    L = 1/B Σ_k [ w_E ((E_k - E_k^ref)/σ_E)² + w_F/(3 n_k) Σ_i |F_ki - F_ki^ref|²/σ_F²
                  + w_V/9 Σ_ab (W_kab - W_kab^ref)²/σ_V² + w_q/n_k Σ_i (q_ki - q_ki^ref)²/σ_q²
                  + w_μ/3 |μ_k - μ_k^ref|²/σ_μ² + w_Z/(9 n_k) Σ_iab (Z_kiab - Z_kiab^ref)²/σ_Z² ]

over the B frames of a batch with n_k atoms each. E_k is the energy of the whole frame (eV, without reference
energies), F the forces (eV/Å), W the virial of the whole frame (eV), q the charges (e), μ the dipole (e·Å), Z
the Born effective charges (e, see `couple.polarization`). Weights w are the configuration's. Where σ is not
given it is estimated on the training frames: σ_E the standard deviation of E - ΣE0, σ_V that of a component
of the virial, the others the root mean square of a component; so every term is of order one. A target that
a frame does not have adds nothing; one that no frame has is an error. The loss of a frame is multiplied by
the weight of its config_type. A run may have two stages with other w and the same σ.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nearsight import keys
from nearsight.couple import Results
from nearsight.data import Frame, ReferenceEnergies
from nearsight.errors import DataError
from nearsight.training.batches import TARGETS, Batch
from nearsight.training.config import KeysConfig, LossConfig

_SMALLEST_SIGMA = 1e-3  # eV, eV/Å, eV: data without spread (one frame, all equal) give no scale


@dataclass(frozen=True)
class Loss:
    """Weights and σ per target; targets of weight zero are left out."""

    weights: dict[str, float]
    sigmas: dict[str, float]

    def __call__(self, results: Results, batch: Batch) -> Tensor:
        """Loss of every frame, [B] in double, dimensionless."""
        errors = {
            keys.ENERGY: lambda: (results.energy - batch.targets[keys.ENERGY]) ** 2,
            keys.FORCES: lambda: _of_atoms(results.forces - batch.targets[keys.FORCES], batch),
            keys.VIRIAL: lambda: ((results.virial - batch.targets[keys.VIRIAL]) ** 2).mean(dim=(1, 2)),
            keys.CHARGES: lambda: _of_atoms(results.charges[:, 0] - batch.targets[keys.CHARGES], batch),
            keys.DIPOLE: lambda: ((results.dipole - batch.targets[keys.DIPOLE]) ** 2).mean(dim=1),
            keys.BORN_CHARGES: lambda: _of_atoms(
                results.born_charges - batch.targets[keys.BORN_CHARGES], batch
            ),
        }
        total = torch.zeros_like(batch.num_atoms)
        for name, weight in self.weights.items():
            if name == keys.BORN_CHARGES and results.born_charges is None:
                continue  # no frame has labels
            total = total + weight / self.sigmas[name] ** 2 * batch.present[name] * errors[name]()
        return total


def _of_atoms(errors: Tensor, batch: Batch) -> Tensor:
    """Mean squares of errors[n, ...] in every frame, [B]."""
    squares = (errors**2).reshape(len(errors), -1).mean(dim=1)
    return torch.zeros_like(batch.num_atoms).index_add(0, batch.graph.frame, squares) / batch.num_atoms


def make_loss(config: LossConfig, frames: Sequence[Frame], reference: ReferenceEnergies) -> Loss:
    """The loss of a stage, with σ estimated on the training frames where they are not given."""
    weights = {name: getattr(config, name) for name in TARGETS if getattr(config, name) > 0}
    sigmas = {
        name: getattr(config, f"sigma_{name}") or _estimate(name, frames, reference) for name in weights
    }
    return Loss(weights, sigmas)


def _estimate(name: str, frames: Sequence[Frame], reference: ReferenceEnergies) -> float:
    having = [frame for frame in frames if name in frame.labels]
    if name == keys.ENERGY:
        sigma = np.std([f.labels[name] - reference.total(f.symbols) for f in having])
    elif name != keys.VIRIAL:
        sigma = np.sqrt(np.mean(np.concatenate([f.labels[name].ravel() for f in having]) ** 2))
    else:
        virials = np.stack([f.labels[name] for f in having])
        sigma = np.sqrt(np.mean((virials - virials.mean(axis=0)) ** 2))
    return max(float(sigma), _SMALLEST_SIGMA)


def check_targets(config: LossConfig, file_keys: KeysConfig, sets: dict[str, Sequence[Frame]]) -> None:
    """Refuse a loss that weights, in one of its stages, a target which a set of frames does not have at all.

    Raises DataError naming the key that was looked for and the fields that the files do have.
    """
    for section, stage in config.stages().items():
        weights = {name: getattr(stage, name) for name in TARGETS if getattr(stage, name) > 0}
        for name, weight in weights.items():
            for part, frames in sets.items():
                if frames and not any(name in frame.labels for frame in frames):
                    raise DataError(
                        _absent(f"{section}.{name}", weight, name, getattr(file_keys, name), part, frames)
                    )
        if keys.DIPOLE in weights:
            _check_dipoles(f"{section}.{keys.DIPOLE}", sets)
        if not weights:
            raise DataError(
                f"{section} weights nothing; give one of {', '.join(TARGETS)} a weight above zero."
            )


def _check_dipoles(weighted: str, sets: dict[str, Sequence[Frame]]) -> None:
    for frames in sets.values():
        for frame in frames:
            if keys.DIPOLE in frame.labels and frame.pbc.any():
                raise DataError(
                    f"{frame.source} is periodic and has a dipole, which depends on the images of its atoms; "
                    f"remove the label, set pbc to F F F if it is a molecule, or {weighted}: 0."
                )


def _absent(weighted: str, weight: float, name: str, key: str, part: str, frames: Sequence[Frame]) -> str:
    fields = sorted({field for frame in frames for field in frame.info})
    near = difflib.get_close_matches(key, fields, n=1)
    hint = f"the files have {near[0]!r}: set data.keys.{name}, " if near else f"set data.keys.{name} "
    others = "" if near else f"(the files have {', '.join(fields) or 'no other fields'}), "
    return (
        f"{weighted} is {weight:g}, but no frame of the {part} set has {name} (key {key!r}); "
        f"{hint}{others}or {weighted}: 0."
    )
