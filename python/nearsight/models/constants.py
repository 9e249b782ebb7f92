"""Modules whose constants survive a stay in single precision."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


class ConstantsModule(nn.Module):
    """A module whose constants are exact again when it comes back from single precision."""

    __jit_ignored_attributes__ = ["_exact"]  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self._exact: dict[str, Tensor] = {}

    def constant(self, name: str, value: Tensor) -> None:
        """Make a buffer of the tensor, which is in double."""
        self._exact[name] = value
        self.register_buffer(name, value)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ConstantsModule:
        super()._apply(fn, recurse)
        for name, exact in self._exact.items():
            self.register_buffer(name, exact.to(self.get_buffer(name)))
        return self
