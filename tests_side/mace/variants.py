"""Models of mace-torch with random weights: every block, basis and layout that can be imported."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from e3nn import o3
from mace import modules

# Rounded in a model of single precision, but not in the import: couplings and ZBL's screening function.
CONSTANTS = ("U_matrix", "_w3j")
TABLE = tuple(number for number in range(1, 93) if number not in (85, 87, 88))  # 89 elements


@dataclass(frozen=True, eq=False)
class Variant:
    """What makes a model: mace-torch's own keyword arguments, and some of ours."""

    name: str
    first: str = "RealAgnosticResidualInteractionBlock"
    block: str = "RealAgnosticResidualInteractionBlock"
    hidden: str = "8x0e + 8x1o"
    numbers: tuple[int, ...] = (1, 6, 8)
    model: str = "ScaleShiftMACE"
    dtype: torch.dtype = torch.float64
    cueq: str | None = None  # cuEquivariance's layout
    scale: float = 15.0  # of the energies; mace-torch multiplies ZBL by it, too
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def head(self) -> str | None:
        """The head to take of a model with several."""
        return self.more["heads"][1] if "heads" in self.more else None

    def build(self) -> torch.nn.Module:
        """Return the model in double precision; its parameters are of `dtype`."""
        torch.set_default_dtype(torch.float64)
        torch.manual_seed(sum(map(ord, self.name)))
        rng = np.random.default_rng(5)
        heads = self.more.get("heads", ["Default"])
        config = {
            "r_max": 4.5,
            "num_bessel": 6,
            "num_polynomial_cutoff": 5,
            "max_ell": 2,
            "num_interactions": 2,
            "correlation": 3,
            "MLP_irreps": o3.Irreps("8x0e"),
            "gate": torch.nn.functional.silu,
            "avg_num_neighbors": 7.3,
            "radial_MLP": [16, 16],
            "atomic_energies": 10.0 * rng.normal(size=(len(heads), len(self.numbers))),
            "atomic_numbers": list(self.numbers),
            "num_elements": len(self.numbers),
            "hidden_irreps": o3.Irreps(self.hidden),
            "interaction_cls": getattr(modules.blocks, self.block),
            "interaction_cls_first": getattr(modules.blocks, self.first),
            **self.more,
        }
        if self.model == "ScaleShiftMACE":
            config["atomic_inter_scale"] = self.scale + np.arange(len(heads))
            config["atomic_inter_shift"] = 0.2 - 0.3 * np.arange(len(heads))
        if self.cueq:
            from mace.modules.wrapper_ops import CuEquivarianceConfig

            config["cueq_config"] = CuEquivarianceConfig(
                enabled=True, layout=self.cueq, group="O3_e3nn", optimize_all=True
            )
        model = getattr(modules, self.model)(**config).eval()
        if self.dtype == torch.float32:
            for name, tensor in model.state_dict().items():
                rounded = name != "pair_repulsion_fn.c" and not any(part in name for part in CONSTANTS)
                if rounded and tensor.is_floating_point():
                    tensor.copy_(tensor.float())
        return model

    def save(self, path: Path) -> torch.nn.Module:
        """Write the model in its precision and return it in double precision."""
        model = self.build()
        if self.dtype == torch.float32:
            torch.save(self.build().float(), path)
        else:
            torch.save(model, path)
        return model


def _blocks(kind: str) -> str:
    return f"RealAgnostic{kind}InteractionBlock"


VARIANTS = (
    Variant("residual"),
    Variant("plain", first=_blocks(""), block=_blocks(""), hidden="8x0e + 8x1o + 8x2e"),
    Variant("off", first=_blocks(""), hidden="8x0e", more={"max_ell": 3}),
    Variant("density", first=_blocks("Density"), block=_blocks("Density")),
    Variant(
        "omat",
        first=_blocks("DensityResidual"),
        block=_blocks("DensityResidual"),
        scale=0.5,
        more={"distance_transform": "Agnesi", "pair_repulsion": True, "max_ell": 3},
    ),
    Variant("ace", hidden="16x0e", more={"num_interactions": 1, "max_ell": 3}),
    Variant(
        "three",
        hidden="4x0e + 4x1o + 4x2e",
        more={"num_interactions": 3, "correlation": [2, 3, 1], "radial_MLP": [12, 10, 8]},
    ),
    Variant("odd", hidden="4x0e + 4x0o + 4x1o + 4x1e", more={"correlation": 2}),
    Variant("axial", hidden="4x0e + 4x1e + 4x1o"),
    Variant(
        "gaussian",
        first=_blocks("Density"),
        block=_blocks("DensityResidual"),
        more={"radial_type": "gaussian", "distance_transform": "Soft", "apply_cutoff": False},
    ),
    Variant("heads", scale=0.5, more={"heads": ["first", "second", "third"], "pair_repulsion": True}),
    Variant("table", hidden="4x0e + 4x1o", numbers=TABLE, more={"distance_transform": "Agnesi"}),
    Variant("unscaled", model="MACE", more={"pair_repulsion": True, "num_polynomial_cutoff": 6}),
    Variant("lean", more={"use_agnostic_product": True, "use_last_readout_only": True}),
    Variant("kept", more={"keep_last_layer_irreps": True}),
    Variant(
        "single",
        dtype=torch.float32,
        scale=0.2,
        more={"distance_transform": "Agnesi", "pair_repulsion": True, "r_max": 4.3},
    ),
    Variant(
        "single_soft", dtype=torch.float32, first=_blocks("Density"), more={"distance_transform": "Soft"}
    ),
    Variant("cueq_ir_mul", cueq="ir_mul", hidden="8x0e + 8x1o"),
    Variant("cueq_mul_ir", cueq="mul_ir", hidden="8x0e + 8x1o", more={"use_reduced_cg": True}),
)

CHEBYSHEV = Variant(
    "chebyshev",
    more={"radial_type": "chebyshev", "distance_transform": "Agnesi", "apply_cutoff": False},
)

UNKNOWN = {
    Variant("attention", block="RealAgnosticAttResidualInteractionBlock"): "interaction block is a .*Att",
    Variant(
        "nonlinear",
        first="RealAgnosticResidualNonLinearInteractionBlock",
        block="RealAgnosticResidualNonLinearInteractionBlock",
    ): "interaction block is a .*NonLinear",
    Variant("gate", more={"gate": torch.tanh}): "activation of the readout is not silu",
    Variant("so3", hidden="4x0e + 4x1e", more={"use_so3": True}): "use_so3",
    Variant("edges", more={"edge_irreps": o3.Irreps("4x0e + 4x1o")}): "features on edges are 4x0e",
    Variant("bias", more={"readout_cls": modules.blocks.NonLinearBiasReadoutBlock}): "readout is a .*Bias",
    Variant(
        "charge",
        more={
            "embedding_specs": {
                "total_charge": {
                    "type": "continuous",
                    "in_dim": 1,
                    "emb_dim": 4,
                    "use_bias": True,
                    "per": "graph",
                }
            }
        },
    ): "joint_embedding",
}
