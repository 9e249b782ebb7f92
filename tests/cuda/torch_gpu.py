"""A GPU of torch for tests without one: tensors of device "gpu" live in the CPU's memory, but know that they
do not belong to it, so that code which mixes devices fails here as it would there.

Their ops are those of the CPU; the ops of nearsight are those of the emulated CUDA kernels. Torch's own
PrivateUse1 device stands behind it, once per process.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from .device_ops import HOST_TABLES

NAME = "gpu"
# What torch refuses on a GPU where algorithms are to be deterministic, as they are in training.
REFUSED = {
    "aten::bincount": lambda values, weights=None, minlength=0: weights is not None,
    "aten::cumsum": lambda values, *_, **__: values.is_floating_point(),
    "aten::histc": lambda *_, **__: True,
    "aten::put_": lambda *_, **__: True,
}
COPIES = ("aten::_to_copy", "aten::copy_", "aten::_local_scalar_dense")


@cache
def register() -> None:
    """Make the device known to torch."""
    _setup_privateuseone_for_python_backend(NAME)


class GpuTensor(torch.Tensor):
    """A tensor of the device; `held` has its values."""

    held: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> GpuTensor:
        tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=f"{NAME}:0",
        )
        tensor.held = held
        return tensor

    def __repr__(self) -> str:
        return f"GpuTensor({self.held!r})"

    def tolist(self) -> Any:
        """What torch has for its own tensors only."""
        return self.held.tolist()

    def numpy(self) -> Any:
        """As on a GPU."""
        raise TypeError("a tensor of the GPU has no numpy array: take .cpu() first")

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatch(op, args, kwargs or {})


class EmulatedGpu(TorchDispatchMode):
    """Inside, torch has the device. `ops` are the names of all that ran there."""

    def __init__(self) -> None:
        register()
        super().__init__()
        self.ops: set[str] = set()

    def __enter__(self) -> EmulatedGpu:
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(…, device) copies from the CPU
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch._C._set_only_lift_cpu_tensors(False)

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if any(isinstance(value, GpuTensor) for value in pytree.tree_leaves((args, kwargs))):
            self.ops.add(str(op))
        return dispatch(op, args, kwargs)


def dispatch(op: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Do an op where its tensors are."""
    given = [value for value in pytree.tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
    there = any(isinstance(value, GpuTensor) for value in given)
    name = op._schema.name
    wanted = kwargs.get("device")
    on_gpu = there if wanted is None else torch.device(wanted).type == NAME
    if wanted is not None:
        kwargs = kwargs | {"device": torch.device("cpu")}
    if name.startswith("nearsight::") and there:
        return of_nearsight(op, args)
    if there and name not in COPIES:
        for value in given:
            if not isinstance(value, GpuTensor) and value.dim() > 0:
                raise RuntimeError(f"{name}: expected all tensors on the GPU, found one on the CPU")
        if name in REFUSED and REFUSED[name](*args, **kwargs):
            raise RuntimeError(f"{name} does not have a deterministic implementation on the GPU")
    found = op(*pytree.tree_map(unwrapped, args), **pytree.tree_map(unwrapped, kwargs))
    if name == "aten::_local_scalar_dense":
        return found
    mine = {id(value.held): value for value in given if isinstance(value, GpuTensor)}

    def wrapped(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or not on_gpu:
            return value
        return mine.get(id(value)) if id(value) in mine else GpuTensor(value)

    if name == "aten::copy_":
        return args[0]
    return pytree.tree_map(wrapped, found)


def unwrapped(value: Any) -> Any:
    return value.held if isinstance(value, GpuTensor) else value


def of_nearsight(op: Any, args: tuple) -> None:
    """The emulated kernels, which read some small tables on the host."""
    for value, known in zip(args, op._schema.arguments):
        if isinstance(value, torch.Tensor) and isinstance(value, GpuTensor) == (known.name in HOST_TABLES):
            place = "CPU" if known.name in HOST_TABLES else "GPU"
            raise RuntimeError(f"{op._schema.name}: expected {known.name} on the {place}")
    name = op._schema.name.removeprefix("nearsight::")
    getattr(torch.ops.nearsight_device, name)(*map(unwrapped, args))
