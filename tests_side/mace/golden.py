"""Writes tests/mace_golden/*.npz: numbers of tiny models of mace-torch, and what it computes with them.

    python tests_side/mace/golden.py

Each file has what `nearsight.importers.mace_extract` hands over (record as text, and arrays), and of the last
head energy, forces and stress of a triclinic cell in double precision by mace-torch's calculator. The stored
files are of mace-torch 0.3.16, e3nn 0.4.4 and torch 2.13.0.
"""

import json
import os
import tempfile
from pathlib import Path

os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"

import numpy as np
from mace.calculators import MACECalculator
from systems import systems
from variants import Variant

from nearsight.importers import mace_extract

FOLDER = Path(__file__).parents[2] / "tests" / "mace_golden"
SMALL = {"max_ell": 2, "radial_MLP": [4], "num_bessel": 4}
MODELS = (
    Variant(
        "omat",
        first="RealAgnosticDensityInteractionBlock",
        block="RealAgnosticDensityResidualInteractionBlock",
        hidden="4x0e + 4x1o",
        numbers=(1, 6, 8),
        more=SMALL | {"distance_transform": "Agnesi", "pair_repulsion": True, "heads": ["first", "second"]},
    ),
    Variant(
        "odd",
        block="RealAgnosticInteractionBlock",
        hidden="2x0e + 2x0o + 2x1o + 2x1e",
        numbers=(1, 8),
        more=SMALL
        | {"correlation": 2, "radial_type": "gaussian", "distance_transform": "Soft", "apply_cutoff": False},
    ),
)

FOLDER.mkdir(exist_ok=True)
for variant in MODELS:
    with tempfile.TemporaryDirectory() as folder:
        model = variant.save(Path(folder, "mace.model"))
        record = mace_extract.main(f"{folder}/mace.model", folder)
        arrays = dict(np.load(f"{folder}/arrays.npz"))
    atoms = systems(variant.numbers)["triclinic"]
    calculator = MACECalculator(
        models=[model], device="cpu", default_dtype="float64", head=record["heads"][-1]
    )
    calculator.calculate(atoms, properties=["energy", "forces", "stress"])
    golden = {name: np.asarray(calculator.results[name]) for name in ("energy", "forces", "stress")}
    golden |= {"numbers": atoms.numbers, "positions": atoms.positions, "cell": atoms.cell.array}
    text = np.frombuffer(json.dumps(record).encode(), dtype=np.uint8)
    extra = {f"golden.{name}": values for name, values in golden.items()}
    np.savez_compressed(FOLDER / f"{variant.name}.npz", record=text, **arrays, **extra)
