"""Network ops on a device: the tests of those of the CPU."""

import pytest
import test_native_networks
from test_native_networks import compare as compared
from test_native_networks import (  # noqa: F401
    networks,
    test_a_species_without_atoms,
    test_every_activation,
    test_members_outputs_and_species_with_different_networks,
    test_one_layer,
    test_the_last_layer_may_have_an_activation,
)

from nearsight.models.networks import NetworkShape

from .device_ops import DeviceOps


@pytest.fixture(autouse=True)
def device(monkeypatch, thread_order):
    ops = DeviceOps()
    monkeypatch.setattr(test_native_networks, "load_ops", lambda: ops)


def test_sums_over_many_atoms():
    """Those of weights are split."""
    compared(networks([NetworkShape((40, 35), ("tanh", "silu", "linear"))], members=2), count=700)
