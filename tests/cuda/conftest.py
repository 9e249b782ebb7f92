"""The CUDA kernels: on the CPU, or with `make gpu-check`, which sets NEARSIGHT_TEST_GPU, on a GPU."""

import os

import pytest


@pytest.fixture(autouse=True)
def kernels(monkeypatch):
    if not os.environ.get("NEARSIGHT_TEST_GPU"):
        monkeypatch.setenv("NEARSIGHT_CUDA", "emulated")


@pytest.fixture(params=["forward", "reverse"])
def thread_order(request, monkeypatch):
    """Threads of emulated blocks take turns in both orders: where results differ there is a race."""
    monkeypatch.setenv("NEARSIGHT_EMULATION_ORDER", request.param)
