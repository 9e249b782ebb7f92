"""Parameters of atom-centered symmetry functions: validated records in the form of docs/file_format.md.

η is in Å⁻², distances in Å, angles in degrees. The kinds are the types 2, 3, 9, 20, 21 and 22 of n2p2, with
`weights` 12, 13 and 23 to 25.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from nearsight.models.cutoff_functions import CoreFunction


class _Function(BaseModel):
    """With `weights`, neighbors of every species named count, times the weight of theirs (Gastegger 2018)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True)

    num_neighbors: ClassVar[int]  # 1 for a sum over neighbors, 2 for a sum over pairs of them

    kind: str
    neighbors: tuple[str, ...]
    weights: tuple[float, ...] | None = None
    cutoff: float = Field(gt=0.0)

    @model_validator(mode="after")
    def _neighbors_fit(self) -> _Function:
        count = self.num_neighbors
        if self.weights is None and len(self.neighbors) != count:
            raise ValueError(f"neighbors must name {count} species, found {len(self.neighbors)}")
        if self.weights is not None and len(self.weights) != len(self.neighbors):
            raise ValueError(f"weights must be one for each of the {len(self.neighbors)} neighbors")
        if self.weights is not None and len(set(self.neighbors)) != len(self.neighbors):
            raise ValueError("neighbors with weights must be different species")
        return self

    @property
    def is_narrow(self) -> bool:
        """Whether the distance between two neighbors counts."""
        return self.kind.endswith("_narrow")

    def anywhere(self) -> _Function:
        """Return the function without its species, to find those that share their terms."""
        return self.model_copy(update={"neighbors": (), "weights": None})

    def factor(self, *species: str) -> float:
        """Return what a neighbor of this species, or a pair of these, counts."""
        if self.weights is None:
            return float(sorted(species) == sorted(self.neighbors))
        weight = dict(zip(self.neighbors, self.weights))
        product = 1.0
        for symbol in species:
            product *= weight.get(symbol, 0.0)
        return product

    def record(self) -> dict[str, Any]:
        """Return the JSON object of the model file."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def label(self) -> str:
        """Return a readable name."""
        record = {name: value for name, value in self.record().items() if name not in ("kind", "neighbors")}
        fields = " ".join(f"{name}={_text(value)}" for name, value in record.items())
        return f"{self.kind}({','.join(self.neighbors)}) {fields}"


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(_text(v) for v in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


class _Gaussian(_Function):
    eta: float = Field(ge=0.0)
    r_shift: float = 0.0


class _Compact(_Function):
    """C(r) = core function of the distance of r from the middle of [inner, cutoff], 0 outside.

    `inner` may be negative. `asymmetric` pulls the maximum of the slope to the middle.
    """

    inner: float
    core: CoreFunction = "poly2"
    asymmetric: bool = False

    @model_validator(mode="after")
    def _wide_enough(self) -> _Compact:
        if self.inner >= self.cutoff:
            raise ValueError(f"inner must be smaller than the cutoff {self.cutoff}, found {self.inner}")
        if self.asymmetric and self.core == "exp":
            raise ValueError("asymmetric goes with a polynomial core")
        return self


class RadialFunction(_Gaussian):
    """G2 = Σ_j exp(-η (r_ij - r_shift)²) f(r_ij) over the neighbors j of one species."""

    num_neighbors = 1

    kind: Literal["radial"] = "radial"


class CompactRadialFunction(_Compact):
    """Σ_j C(r_ij) over the neighbors j of one species (Bircher, Singraber, Dellago 2021)."""

    num_neighbors = 1

    kind: Literal["compact_radial"] = "compact_radial"


class AngularFunction(_Gaussian):
    """2^(1-ζ) Σ_{j<k} (1 + λ cos θ)^ζ exp(-η Σ(r - r_shift)²) Π f(r) over a pair of neighbors j, k.

    The two species are an unordered pair. Sum and product run over r_ij and r_ik, for `angular_narrow` also
    over r_jk.
    """

    num_neighbors = 2

    kind: Literal["angular_narrow", "angular_wide"]
    lambda_: float = Field(alias="lambda", ge=-1.0, le=1.0)
    zeta: float = Field(ge=1.0)  # below, the derivative at straight angles is not finite


class CompactAngularFunction(_Compact):
    """Σ_{j<k} C(θ) Π C(r) over a pair of neighbors j, k (Bircher, Singraber, Dellago 2021).

    C(θ) is the core function on the window `angle` in degrees; a window that reaches beyond 0 or 180 has its
    middle there. The product runs over r_ij and r_ik, for `compact_narrow` also over r_jk.
    """

    num_neighbors = 2

    kind: Literal["compact_narrow", "compact_wide"]
    angle: tuple[float, float]

    @model_validator(mode="after")
    def _window(self) -> CompactAngularFunction:
        left, right = self.angle
        middle = 0.5 * (left + right)
        if left >= right or right - left > 360.0:
            raise ValueError(f"angle must be a window [left, right] of at most 360, found {list(self.angle)}")
        if (left < 0.0 and middle != 0.0) or (right > 180.0 and middle != 180.0):
            raise ValueError(
                f"a window of angles beyond 0 or 180 must have its middle there, found {list(self.angle)}"
            )
        return self


SymmetryFunction = Annotated[
    RadialFunction | AngularFunction | CompactRadialFunction | CompactAngularFunction,
    Field(discriminator="kind"),
]
