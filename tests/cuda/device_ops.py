"""The training ops on a device: emulated on tensors of the CPU, or copied to a GPU and back."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

from nearsight.models.native_ops import load_ops

HOST_TABLES = {"paths", "sizes", "target_sizes", "shape", "first", "factors", "coefficients", "features"}


class DeviceOps:
    """What stands in for `torch.ops.nearsight`."""

    def __init__(self) -> None:
        load_ops()
        self.on_gpu = bool(os.environ.get("NEARSIGHT_TEST_GPU"))
        if self.on_gpu and not torch.cuda.is_available():
            pytest.skip("this torch has no CUDA")

    def __getattr__(self, name: str) -> Any:
        if not self.on_gpu:
            return getattr(torch.ops.nearsight_device, name)
        op = getattr(torch.ops.nearsight, name)

        def call(*arguments: Any) -> None:
            given = [
                value.cuda() if isinstance(value, torch.Tensor) and known.name not in HOST_TABLES else value
                for value, known in zip(arguments, op.default._schema.arguments)
            ]
            op(*given)
            for value, copy, known in zip(arguments, given, op.default._schema.arguments):
                if known.alias_info is not None and known.alias_info.is_write:
                    value.copy_(copy)

        return call


def assert_same(name: str, *arguments) -> list[torch.Tensor]:
    """Call both ops with copies of what they write; return what the device wrote."""
    cpu = getattr(load_ops(), name)
    copies = [[a.clone() if isinstance(a, torch.Tensor) else a for a in arguments] for _ in range(2)]
    cpu(*copies[0])
    getattr(DeviceOps(), name)(*copies[1])
    written = [known.alias_info is not None for known in cpu.default._schema.arguments]
    single = any(a.dtype == torch.float32 for a in arguments if isinstance(a, torch.Tensor))
    tolerance = 1e-5 if single else 1e-12
    outputs = [pair for pair, is_output in zip(zip(*copies), written) if is_output]
    for expected, found in outputs:
        if not expected.is_floating_point():
            assert torch.equal(found, expected)
        elif expected.numel():
            scale = tolerance * float(expected.abs().max())
            torch.testing.assert_close(found, expected, rtol=tolerance, atol=scale)
    return [found for _, found in outputs]
