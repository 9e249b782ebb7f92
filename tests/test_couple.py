"""Couple: sums, eigenstates and their derivatives, also at an analytic crossing of two states."""

import math

import numpy as np
import pytest
import torch

from nearsight.couple import System, build_couple, evaluate
from nearsight.couple.couples import eigenvalue
from nearsight.errors import ConfigError
from nearsight.neighbors import collate, make_graph

EIGENSTATE = {"kind": "eigenstate", "states": 2, "state": 0}


class Crossing(torch.nn.Module):
    """Two diabatic pair potentials that cross: h11 = k (r - 1)², h22 = k (r - 2)² + d, h12 = c."""

    k, d, c = 3.0, 0.2, 0.05

    def forward(self, species, edge_index, edge_vectors, num_owned: int):
        r = torch.linalg.vector_norm(edge_vectors, dim=1)
        terms = torch.stack(
            [self.k * (r - 1) ** 2, torch.full_like(r, self.c), self.k * (r - 2) ** 2 + self.d], dim=1
        )
        zeros = torch.zeros(num_owned, 3, dtype=r.dtype)
        return {"hamiltonian": zeros.index_add(0, edge_index[0], 0.5 * terms)}


def dimer(r):
    return make_graph([[0.0, 0, 0], [0, r, 0]], [0, 0], np.zeros((3, 3)), [False] * 3, 5.0)


def levels(r):
    """Both eigenvalues of the crossing and their slopes dE/dr, in closed form."""
    h11, h22 = Crossing.k * (r - 1) ** 2, Crossing.k * (r - 2) ** 2 + Crossing.d
    s11, s22 = 2 * Crossing.k * (r - 1), 2 * Crossing.k * (r - 2)
    root = math.hypot(0.5 * (h11 - h22), Crossing.c)
    split = 0.5 * (h11 - h22) / root * 0.5 * (s11 - s22)
    middle, slope = 0.5 * (h11 + h22), 0.5 * (s11 + s22)
    return [(middle - root, slope - split), (middle + root, slope + split)]


@pytest.mark.parametrize("state", [0, 1])
@pytest.mark.parametrize("r", [1.1, 1.5, 1.5 + 0.1 / 3, 1.6, 2.3])  # the diabats cross at 1.5 + d / 2k
def test_two_states_at_an_analytic_crossing(r, state):
    results = evaluate(Crossing(), dimer(r), EIGENSTATE | {"state": state})
    energy, slope = levels(r)[state]
    assert results.energy.item() == pytest.approx(energy, rel=1e-13)
    assert results.forces[1, 1].item() == pytest.approx(-slope, rel=1e-12, abs=1e-13)
    assert results.forces[0, 1].item() == pytest.approx(slope, rel=1e-12, abs=1e-13)
    assert results.virial[0, 1, 1].item() == pytest.approx(-slope * r, rel=1e-12, abs=1e-13)


def test_lower_state_forces_equal_differences_of_the_lower_eigenvalue():
    step = 1e-4
    for r in np.linspace(1.4, 1.7, 7):
        energies = [evaluate(Crossing(), dimer(r + s), EIGENSTATE).energy.item() for s in (-step, step)]
        force = evaluate(Crossing(), dimer(r), EIGENSTATE).forces[1, 1].item()
        assert force == pytest.approx(-(energies[1] - energies[0]) / (2 * step), abs=1e-5)


def test_each_frame_of_a_batch_has_its_own_matrix():
    frames = [1.2, 1.55, 1.9]
    results = evaluate(Crossing(), collate([dimer(r) for r in frames]), EIGENSTATE)
    assert results.energy.tolist() == pytest.approx([levels(r)[0][0] for r in frames], rel=1e-13)


@pytest.mark.parametrize("state", [0, 1, 2, 3])
def test_eigenvalues_have_right_first_and_second_derivatives(state):
    generator = torch.Generator().manual_seed(state)
    matrices = torch.randn(3, 4, 4, dtype=torch.float64, generator=generator).requires_grad_(True)

    def of_symmetric(m):
        return eigenvalue(0.5 * (m + m.transpose(1, 2)), state)

    expected = torch.linalg.eigvalsh(0.5 * (matrices + matrices.transpose(1, 2)))[:, state]
    torch.testing.assert_close(of_symmetric(matrices), expected)
    assert torch.autograd.gradcheck(of_symmetric, matrices)
    assert torch.autograd.gradgradcheck(of_symmetric, matrices)


@pytest.mark.parametrize(
    "matrix", [[[1.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]], [[2.0, 1e-12], [1e-12, 2.0]]]
)
def test_degenerate_states_have_finite_derivatives(matrix):
    matrices = torch.tensor([matrix], dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(eigenvalue(matrices, 0).sum(), matrices, create_graph=True)
    assert first.isfinite().all()
    assert first[0].diagonal().sum().item() == pytest.approx(1.0, rel=1e-14)  # u uᵀ
    (second,) = torch.autograd.grad(first[0, 0, 0], matrices)
    assert second.isfinite().all()


def test_a_sum_and_one_state_are_the_same():
    values = torch.tensor([1.0, 2.5, -0.5], dtype=torch.float64)
    frame = torch.tensor([0, 0, 1])
    total = build_couple({"kind": "sum"})({"energy": values}, System(frame, 2, None))
    one = build_couple({"kind": "eigenstate", "states": 1, "state": 0})
    column = build_couple({"kind": "sum"})({"energy": values.unsqueeze(1)}, System(frame, 2, None))
    assert total.tolist() == column.tolist() == [3.5, -0.5]
    assert one({"hamiltonian": values.unsqueeze(1)}, System(frame, 2, None)).tolist() == [3.5, -0.5]


def test_the_upper_triangle_is_given_by_rows():
    couple = build_couple({"kind": "eigenstate", "states": 3, "state": 2})
    rows = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]], dtype=torch.float64)
    matrix = [[1.0, 2.0, 3.0], [2.0, 4.0, 5.0], [3.0, 5.0, 6.0]]
    energy = couple({"hamiltonian": rows}, System(torch.tensor([0]), 1, None))
    assert energy.item() == pytest.approx(np.linalg.eigvalsh(matrix)[2], rel=1e-14)


def test_sums_are_in_double_also_of_single_precision():
    values = torch.full((1000,), 0.1, dtype=torch.float32)
    one = System(torch.zeros(1000, dtype=torch.int64), 1, None)
    total = build_couple({"kind": "sum"})({"energy": values}, one)
    assert total.item() == pytest.approx(1000 * float(np.float32(0.1)), rel=1e-14)


@pytest.mark.parametrize(
    ("couple", "message"),
    [
        (
            {"kind": "dispersion"},
            "couple kind 'dispersion' is unknown to this nearsight; it knows sum",
        ),
        ({}, "couple kind None is unknown to this nearsight"),
        ({"kind": "eigenstate", "states": 2}, r"couple 'eigenstate' was given the parameters \['states'\]"),
        (EIGENSTATE | {"state": 2}, "couple 'eigenstate' has states 0 to 1, found state 2"),
    ],
)
def test_couples_that_cannot_be_built_are_named(couple, message):
    with pytest.raises(ConfigError, match=message):
        build_couple(couple)


def test_a_missing_readout_is_named():
    message = "couple 'sum' needs the readout 'energy', but the model gives hamiltonian"
    with pytest.raises(ConfigError, match=message):
        evaluate(Crossing(), dimer(1.0), {"kind": "sum"})
