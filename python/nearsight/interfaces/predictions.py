"""What a model says about frames, by the names of labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nearsight import keys
from nearsight.couple.coulomb import CHARGES, PHYSICAL
from nearsight.data import Frame
from nearsight.interfaces.potential import Potential, Results
from nearsight.molecules import molecules_of


def predict(potential: Potential, frame: Frame) -> dict[str, Any]:
    """Return what a model says about a frame, by the names of labels; raises EvaluationError."""
    known = potential.metadata["num_interactions"] == 1 or not frame.pbc.any()
    known = known and potential.metadata["couple"].get("charges") in CHARGES
    born_charges = known and keys.BORN_CHARGES in frame.labels
    born_charges = born_charges and molecules_of(frame.info, len(frame), frame.source) is None
    return _by_label(potential, potential.compute_frame(frame, born_charges=born_charges))


def predict_all(
    potential: Potential, frames: Sequence[Frame], batch_atoms: int | None = None
) -> list[dict[str, Any]]:
    """Return `predict` of each frame, with a progress bar on a terminal; raises EvaluationError.

    Models without electrostatics see many frames at once, see `Potential.compute_batch`.
    """
    from rich.console import Console
    from rich.progress import Progress

    console = Console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("frames", total=len(frames))
        if not potential.num_charges:
            results = potential.compute_batch(
                frames,
                batch_atoms=batch_atoms,
                progress=lambda done: progress.update(task, completed=done),
            )
            return [_by_label(potential, found) for found in results]
        predictions = []
        for frame in frames:
            predictions.append(predict(potential, frame))
            progress.advance(task)
        return predictions


def _by_label(potential: Potential, results: Results) -> dict[str, Any]:
    found = {keys.ENERGY: results.energy, keys.FORCES: results.forces, keys.VIRIAL: results.virial}
    if potential.num_charges and potential.metadata["couple"].get("charges") in PHYSICAL:
        found[keys.CHARGES] = results.charges[:, 0]
    more = {keys.DIPOLE: results.dipole, keys.BORN_CHARGES: results.born_charges}
    return found | {name: values for name, values in more.items() if values is not None}
