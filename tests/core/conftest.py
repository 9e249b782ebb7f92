import pytest
import torch

from nearsight.export import save_model
from nearsight.models import ACSFConfig, ANIConfig, MACEConfig, PaiNNConfig

from .core_models import REFERENCE_ENERGIES, SPECIES, explicit_functions, save_bpnn


@pytest.fixture(scope="session")
def bpnn(tmp_path_factory):
    """A file of the automatic `medium` set."""
    return save_bpnn(tmp_path_factory.mktemp("core") / "bpnn.pt", descriptor=ACSFConfig(size="medium"))


@pytest.fixture(scope="session")
def two_states(tmp_path_factory):
    """A file with a hamiltonian readout of three states, of which the middle one is taken."""
    return save_bpnn(tmp_path_factory.mktemp("core") / "states.pt", states=3, state=1)


@pytest.fixture(scope="session")
def every_kind(tmp_path_factory):
    """A file with explicit functions of every kind, silu, three hidden layers."""
    return save_bpnn(
        tmp_path_factory.mktemp("core") / "kinds.pt",
        descriptor=ACSFConfig(symmetry_functions=explicit_functions(), cutoff_function="tanh3"),
        activation="silu",
        hidden=[17, 33, 5],
    )


@pytest.fixture(scope="session")
def ani(tmp_path_factory):
    """A file of ANI's vectors and a committee of networks so wide that they are single in mixed precision."""
    return save_bpnn(
        tmp_path_factory.mktemp("core") / "ani.pt",
        descriptor=ANIConfig(radial_shifts=5, cutoff_function="exp"),
        activation="gelu",
        hidden=[70, 40],
        members=3,
    )


@pytest.fixture(scope="session", params=["mace", "painn"])
def messages(request, tmp_path_factory):
    """A file of a model with two interaction layers."""
    config = {"mace": MACEConfig, "painn": PaiNNConfig}[request.param]
    torch.manual_seed(7)
    path = tmp_path_factory.mktemp("core") / f"{request.param}.pt"
    save_model(
        path,
        config(cutoff=4.0, channels=3, num_interactions=2).build(SPECIES),
        reference_energies=REFERENCE_ENERGIES,
        reference_energies_source="given",
        provenance={},
    )
    return path
