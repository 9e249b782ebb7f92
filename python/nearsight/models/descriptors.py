"""Descriptors: what the modules have in common, and their sections of the configuration.

A descriptor is a scriptable module:

- forward(species, edge_index, edge_vectors, num_owned) -> table [num_owned, columns], arguments as in
  docs/model_contract.md;
- columns(symbol): which columns are the features of a center of that species, int64;
- record() and weights(): its JSON object and tensors ("descriptor.…") in the model file;
- labels(symbol): a readable name for each feature;
- degrees(symbol): how rough each feature is, for the prior of linear models; float64.

One with trained parameters also has fixed_part(), of which the core needs record() and weights(), and three
steps from the features of that part to its own: channels(table), polynomials(table) whose table of products
the core takes from products(), and normalized(features).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from nearsight.models.ace import ACEConfig
from nearsight.models.acsf import ACSF
from nearsight.models.ani import ANIConfig
from nearsight.models.automatic_functions import Size, automatic_functions
from nearsight.models.cutoff_functions import CutoffFunction
from nearsight.models.soap import SOAPConfig
from nearsight.models.symmetry_functions import SymmetryFunction


class ACSFConfig(BaseModel):
    """Atom-centered symmetry functions; explicit ones (per center species) replace those of `size`."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    kind: Literal["acsf"] = "acsf"
    size: Size = "small"
    cutoff_function: CutoffFunction = "poly2"
    inner_fraction: float = Field(0.0, ge=0.0, lt=1.0)
    symmetry_functions: dict[str, list[SymmetryFunction]] | None = None

    def check(self, cutoff: float) -> None:
        """Raise ValueError if an explicit function does not fit the cutoff (Å)."""
        for symbol, functions in (self.symmetry_functions or {}).items():
            if not functions:
                raise ValueError(f"species {symbol} has an empty list of symmetry functions")
            longest = max(f.cutoff for f in functions)
            if longest > cutoff:
                raise ValueError(
                    f"a symmetry function of {symbol} reaches {longest} Å, beyond the cutoff {cutoff} Å"
                )

    def build(self, cutoff: float, species: list[str]) -> ACSF:
        """Return the module.

        Raises:
            ValueError: explicit functions leave a species out or name one that is not in `species`.
        """
        if self.symmetry_functions is None:
            functions = automatic_functions(species, cutoff, self.size)
        else:
            functions = self.symmetry_functions
            named = set(functions)
            named.update(n for members in functions.values() for f in members for n in f.neighbors)
            missing = set(species) - set(functions)
            if missing or named - set(species):
                raise ValueError(
                    f"symmetry_functions must list every species of the data and no other: the data has "
                    f"{', '.join(species)}, missing are {', '.join(sorted(missing)) or 'none'}, "
                    f"unknown are {', '.join(sorted(named - set(species))) or 'none'}"
                )
        return ACSF(functions, species, self.cutoff_function, self.inner_fraction)


DescriptorConfig = Annotated[ACSFConfig | ACEConfig | ANIConfig | SOAPConfig, Field(discriminator="kind")]


def default_tag(field: str, tag: str, value: str) -> Callable[[Any], Any]:
    """Return a validator of models: the section `field` may leave its `tag` out, which then is `value`."""

    def fill(values: Any) -> Any:
        section = values.get(field) if isinstance(values, dict) else None
        return {**values, field: {tag: value, **section}} if isinstance(section, dict) else values

    return fill
