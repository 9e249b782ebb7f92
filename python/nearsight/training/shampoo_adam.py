"""Adam in the eigenbasis of Shampoo's preconditioners (Vyas et al., arXiv:2409.11321, algorithm 3, "SOAP").

Of the gradient G [a, b] of a matrix of weights, moving averages L of GGᵀ and R of GᵀG are kept. Their
eigenvectors Q_L, Q_R turn the gradient into coordinates that are nearly uncorrelated, and Adam works on
Q_Lᵀ G Q_R. Every few steps a power iteration with a QR decomposition makes the eigenvectors follow L and R.

Parameters are cut into blocks: the last two dimensions are those of matrices, of which sides that are too
long are divided evenly. All blocks of a shape are one tensor [n, a, b]. What is left with one dimension when
those of size 1 are left out is trained by plain Adam.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

_EPSILON = 1e-8
# In mean eigenvalues. Gradients with few rows leave many eigenvalues at zero, of which round-off would choose
# the eigenvectors: a ramp on the diagonal makes the first ones unique, a shift keeps them in the iterations.
_RAMP, _SHIFT = 1e-3, 1e-6


class ShampooAdam(torch.optim.Optimizer):
    """The optimizer; parameters are contiguous, have one dtype, and all have gradients.

    The first step changes no parameter: it makes the first eigenvectors. `state` is by shape of blocks: the
    number of steps, the moments `mean` and `square` in the eigenbasis [n, a, b], and for both sides the
    average `matrix` and its eigenvectors `basis` [n, a, a], by falling eigenvalue.

    Args:
        parameters: in one group.
        lr: learning rate.
        betas: of the average of gradients and of their squares.
        shampoo_beta: of L and R, None for the second of `betas`.
        frequency: steps from one power iteration to the next.
        block_size: longest side of a block.
        weight_decay: decoupled, times the learning rate.
        dtype: of the state and of the steps, None for the one of the parameters.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float,
        betas: Sequence[float] = (0.95, 0.95),
        shampoo_beta: float | None = None,
        frequency: int = 10,
        block_size: int = 64,
        weight_decay: float = 0.0,
        dtype: torch.dtype | None = None,
    ):
        self.betas = tuple(betas)
        self.shampoo_beta = self.betas[1] if shampoo_beta is None else shampoo_beta
        self.frequency, self.block_size, self.dtype = frequency, block_size, dtype
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})
        self._parameters = self.param_groups[0]["params"]
        self._blocks = self._by_shape(parameter.detach() for parameter in self._parameters)

    @torch.no_grad()
    def step(self) -> None:
        """Change the parameters by their gradients."""
        rate, decay = (self.param_groups[0][name] for name in ("lr", "weight_decay"))
        gradients = self._by_shape(parameter.grad.contiguous() for parameter in self._parameters)
        for shape, blocks in self._blocks.items():
            gradient, state = torch.cat(gradients[shape]).to(self.dtype), self.state[shape]
            if not state:
                state.update(_first(gradient))
                self._follow(state["sides"], gradient)
                for side in state["sides"]:
                    side["basis"] = _eigenvectors(side["matrix"])
                continue
            changes = (
                self._change(state, gradient).to(blocks[0].dtype).split([len(block) for block in blocks])
            )
            if decay:
                torch._foreach_mul_(blocks, 1 - rate * decay)
            torch._foreach_sub_(blocks, changes, alpha=rate / (1 - self.betas[0] ** state["steps"]))
            self._follow(state["sides"], gradient)
            if state["steps"] % self.frequency == 0:
                _iterate(state)

    def _by_shape(self, tensors: Iterable[Tensor]) -> dict[str, list[Tensor]]:
        """Views of the blocks of tensors, by a name of their shape."""
        found: dict[str, list[Tensor]] = {}
        for tensor in tensors:
            for block in _blocks(tensor, self.block_size):
                name = "x".join(map(str, block.shape[1:])) or "vector"
                found.setdefault(name, []).append(block)
        return found

    def _change(self, state: dict[str, Any], gradient: Tensor) -> Tensor:
        """Adam's step uphill, for a learning rate of 1 and without the bias correction of the mean."""
        bases = [side["basis"] for side in state["sides"]]
        gradient = _turn(gradient, bases)
        state["steps"] += 1
        state["mean"].lerp_(gradient, 1 - self.betas[0])
        state["square"].mul_(self.betas[1]).addcmul_(gradient, gradient, value=1 - self.betas[1])
        bias = math.sqrt(1 - self.betas[1] ** state["steps"])
        sizes = state["square"].sqrt().div_(bias).add_(_EPSILON)
        return _turn(state["mean"] / sizes, [basis.mT for basis in bases])

    def _follow(self, sides: Sequence[dict[str, Tensor]], gradient: Tensor) -> None:
        """Take a gradient into the averages L and R."""
        for dim, side in enumerate(sides, 1):
            factor = gradient.transpose(1, dim)
            side["matrix"].baddbmm_(factor, factor.mT, beta=self.shampoo_beta, alpha=1 - self.shampoo_beta)


def _blocks(tensor: Tensor, size: int) -> list[Tensor]:
    """Views [n, a, b] with sides up to `size`, or [n]."""
    shape = [length for length in tensor.shape if length > 1]
    if len(shape) < 2:
        return [tensor.view(-1)]
    matrices = tensor.view(-1, *shape[-2:])
    down, across = (math.ceil(length / size) for length in shape[-2:])
    return [block for strip in matrices.tensor_split(down, 1) for block in strip.tensor_split(across, 2)]


def _first(gradient: Tensor) -> dict[str, Any]:
    """The state before the first gradient."""
    sides = [{"matrix": gradient.new_zeros(len(gradient), a, a)} for a in gradient.shape[1:]]
    return {
        "steps": 0,
        "mean": torch.zeros_like(gradient),
        "square": torch.zeros_like(gradient),
        "sides": sides,
    }


def _turn(values: Tensor, bases: Sequence[Tensor]) -> Tensor:
    """Q_Lᵀ X Q_R of X [n, a, b] for the bases Q_L, Q_R; X where there are none."""
    if not bases:
        return values
    left, right = bases
    return left.mT @ values @ right


def _eigenvectors(matrix: Tensor) -> Tensor:
    """By falling eigenvalue. Values that are not finite count as zero: they are in the weights after the next
    step, and in the loss, where they end the run with a sentence."""
    finite = matrix.nan_to_num(posinf=0.0, neginf=0.0)
    size = finite.size(1)
    ramp = torch.arange(size, 0, -1, dtype=finite.dtype, device=finite.device) * (_RAMP / size)
    found = torch.linalg.eigh(finite + torch.diag_embed(_mean(finite) * ramp))
    return found.eigenvectors.flip(2).contiguous()


def _mean(matrix: Tensor) -> Tensor:
    """Mean eigenvalues [n, 1]."""
    return matrix.diagonal(dim1=1, dim2=2).mean(1, keepdim=True)


def _iterate(state: dict[str, Any]) -> None:
    """A power iteration for both bases. The mean of the gradients stays what it is, in the new coordinates;
    their squares stay with the eigenvectors that they belong to."""
    sides = state["sides"]
    before = [side["basis"] for side in sides]
    for dim, side in enumerate(sides, 1):
        shift = _SHIFT * _mean(side["matrix"]).unsqueeze(2)
        products = torch.baddbmm(shift * side["basis"], side["matrix"], side["basis"])
        order = (side["basis"] * products).sum(1).argsort(descending=True, stable=True)
        products = products.gather(2, order.unsqueeze(1).expand_as(products))
        order = order.unsqueeze(3 - dim).expand_as(state["square"])
        state["square"] = state["square"].gather(dim, order)
        side["basis"] = torch.linalg.qr(products).Q.contiguous()
    turns = [old.mT @ side["basis"] for old, side in zip(before, sides)]
    state["mean"] = _turn(state["mean"], turns)
