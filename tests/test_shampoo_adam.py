"""The Shampoo-type Adam against the paper written with loops, and against Adam where the two are the same."""

import io
import math
from functools import partial

import numpy as np
import pytest
import torch

from nearsight.training.shampoo_adam import ShampooAdam

BETAS, SHAMPOO_BETA, FREQUENCY, RATE, DECAY = (0.9, 0.95), 0.8, 3, 0.02, 0.1


def first_eigenvectors(matrix):
    """By falling eigenvalue; a ramp makes those of equal eigenvalues unique."""
    ramp = 1e-3 * np.diag(matrix).mean() * np.arange(len(matrix), 0, -1) / len(matrix)
    return np.linalg.eigh(matrix + np.diag(ramp))[1][:, ::-1]


def iterated(matrix, vectors):
    """A power iteration of the eigenvectors, by falling eigenvalue, and their order before it."""
    order = np.argsort(-np.diag(vectors.T @ matrix @ vectors))
    shift = 1e-6 * np.diag(matrix).mean()
    return np.linalg.qr((matrix + shift * np.eye(len(matrix))) @ vectors[:, order])[0], order


def reference(weights, gradients):
    """Algorithm 3 of arXiv:2409.11321 for one matrix: the mean of the gradients is kept in the coordinates of
    the weights. The squares go with the eigenvectors when these are sorted."""
    weights, mean, square = weights.copy(), np.zeros_like(weights), np.zeros_like(weights)
    left, right = ((1 - SHAMPOO_BETA) * g @ g.T for g in (gradients[0], gradients[0].T))
    q_left, q_right = first_eigenvectors(left), first_eigenvectors(right)
    for steps, gradient in enumerate(gradients[1:], 1):
        turned = q_left.T @ gradient @ q_right
        mean = BETAS[0] * mean + (1 - BETAS[0]) * gradient
        square = BETAS[1] * square + (1 - BETAS[1]) * turned**2
        turned_mean = q_left.T @ mean @ q_right / (1 - BETAS[0] ** steps)
        step = turned_mean / (np.sqrt(square / (1 - BETAS[1] ** steps)) + 1e-8)
        weights = weights * (1 - RATE * DECAY) - RATE * q_left @ step @ q_right.T
        left = SHAMPOO_BETA * left + (1 - SHAMPOO_BETA) * gradient @ gradient.T
        right = SHAMPOO_BETA * right + (1 - SHAMPOO_BETA) * gradient.T @ gradient
        if steps % FREQUENCY == 0:
            q_left, down = iterated(left, q_left)
            q_right, across = iterated(right, q_right)
            square = square[down][:, across]
    return weights


def optimizer(parameters, **changes):
    settings = {"betas": BETAS, "shampoo_beta": SHAMPOO_BETA, "frequency": FREQUENCY, "weight_decay": DECAY}
    return ShampooAdam(parameters, lr=RATE, **(settings | changes))


def steps(adam, parameters, gradients):
    """One step for each of the gradients of all parameters."""
    for some in gradients:
        for parameter, gradient in zip(parameters, some):
            parameter.grad = gradient
        adam.step()


def random_tensors(shapes, seed):
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=rng, dtype=torch.float64) for shape in shapes]


def test_blocks_equal_the_paper():
    """A matrix, one in blocks of two shapes, and three matrices at once."""
    shapes = [(4, 3), (5, 7), (3, 4, 2)]
    parameters = [torch.nn.Parameter(start) for start in random_tensors(shapes, 0)]
    started = [parameter.detach().clone() for parameter in parameters]
    gradients = [random_tensors(shapes, seed) for seed in range(1, 15)]
    steps(optimizer(parameters, block_size=4), parameters, gradients)

    def check(number, *place):
        expected = reference(
            started[number][place].numpy(), [some[number][place].numpy() for some in gradients]
        )
        found = parameters[number][place].detach().numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)

    check(0, ...)
    for rows in (slice(0, 3), slice(3, 5)):
        for columns in (slice(0, 4), slice(4, 7)):
            check(1, rows, columns)
    for matrix in range(3):
        check(2, matrix)


def test_adam_where_the_axes_are_the_eigenvectors():
    """Vectors, also with dimensions of size 1; and a matrix of which only the diagonal has gradients."""
    shapes = [(5,), (1, 6, 1), (4, 4)]
    starts = random_tensors(shapes, 0)
    gradients = [random_tensors(shapes, seed) for seed in range(1, 12)]
    for some in gradients:
        some[2] = torch.diag(some[2].diagonal())
    found, expected = ([torch.nn.Parameter(start.clone()) for start in starts] for _ in range(2))
    adam = optimizer(found)
    steps(adam, found, gradients[:1])
    assert all(torch.equal(parameter, start) for parameter, start in zip(found, starts))
    steps(adam, found, gradients[1:])
    plain = torch.optim.AdamW(expected, lr=RATE, betas=BETAS, weight_decay=DECAY)
    steps(plain, expected, gradients[1:])
    for one, two in zip(found, expected):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-9)  # round-off of axes over Adam's 1e-8


def test_faster_than_adam_where_the_axes_are_not():
    """½ |A (W - W') B|² with A and B of condition 30 in random directions, so of condition 10⁶."""
    rng = torch.Generator().manual_seed(0)
    scales = torch.logspace(0, -1.5, 8, dtype=torch.float64)

    def turned():
        one, two = (torch.linalg.qr(torch.randn(8, 8, generator=rng).double()).Q for _ in range(2))
        return one @ torch.diag(scales) @ two

    a, b, goal = turned(), turned(), torch.randn(8, 8, generator=rng).double()

    def trained(make, rate):
        weights = torch.nn.Parameter(torch.zeros(8, 8, dtype=torch.float64))
        adam = make([weights], lr=rate)
        for number in range(300):
            adam.param_groups[0]["lr"] = rate * 0.5 * (1 + math.cos(math.pi * number / 300))
            adam.zero_grad()
            loss = 0.5 * (a @ (weights - goal) @ b).square().sum()
            loss.backward()
            adam.step()
        return float(loss.detach())

    plain = min(trained(torch.optim.Adam, rate) for rate in (0.03, 0.1, 0.3))
    assert trained(partial(ShampooAdam, frequency=1), 0.1) < 0.1 * plain


def test_a_state_continues_bit_for_bit():
    shapes = [(9, 6), (2, 5, 5), (3,)]
    gradients = [random_tensors(shapes, seed) for seed in range(20)]
    whole, parts = ([torch.nn.Parameter(start) for start in random_tensors(shapes, 99)] for _ in range(2))
    steps(optimizer(whole, block_size=5), whole, gradients)
    first = optimizer(parts, block_size=5)
    steps(first, parts, gradients[:8])
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = optimizer(parts, block_size=5)
    second.load_state_dict(torch.load(file, weights_only=True))
    steps(second, parts, gradients[8:])
    assert all(torch.equal(one, two) for one, two in zip(whole, parts))


@pytest.mark.parametrize("number", [0, 4])
def test_gradients_that_are_zero_or_not_finite(number):
    """Zero moves nothing, whenever it comes; what is not finite is seen in the weights."""
    weights = torch.nn.Parameter(torch.ones(4, 3, dtype=torch.float64))
    adam = optimizer([weights], weight_decay=0.0)
    zero = torch.zeros_like(weights)
    steps(adam, [weights], [[zero]] * 8)
    assert torch.equal(weights.detach(), torch.ones(4, 3, dtype=torch.float64))
    adam = optimizer([weights], weight_decay=0.0)
    gradients = [[some] for some in [zero] * number + [zero + math.nan] + [zero] * 5]
    steps(adam, [weights], gradients)
    assert weights.isnan().all()
