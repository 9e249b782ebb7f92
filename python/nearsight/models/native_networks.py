"""Networks on the core for training: values, gradients by the features, and their derivatives by the weights.

For layers z = W y + b, y' = a(z) and a cotangent g of the outputs N,

    values     y → z → y'                     gradient  δ = a'(z) dN/dy',  dN/dy = Wᵀ δ
    tangent    ż = W ẏ,  ẏ' = a'(z) ż         second    δ̇ = a''(z) ż dN/dy' + a'(z) d(dN/dy')

The forces are products of c = dN/dx with what does not depend on the weights, so a loss asks for the
derivatives of v · c, the tangent of N along v: dW = δ ẏᵀ + δ̇ yᵀ and db = δ̇. See
csrc/core/models/networks/training.hpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nearsight.models.activations import ACTIVATIONS
from nearsight.models.networks import SpeciesNetwork

_NUMBERS = {kind: number for number, kind in enumerate(ACTIVATIONS.values())}


class NativeNetworks:
    """The networks of a model, by species; they share the module's parameters.

    Args:
        ops: `load_ops()`.
        networks: of all species.
        second: whether second derivatives by the table are needed: its features depend on parameters.
        num_threads: of the core.
    """

    def __init__(self, ops: Any, networks: Sequence[SpeciesNetwork], second: bool, num_threads: int):
        self.ops, self.networks, self.second, self.num_threads = ops, networks, second, num_threads
        self.columns = networks[0].members * networks[0].layers[-1].bias.size(1)
        self.shapes = [_shape(network) for network in networks]

    def __call__(self, species: Tensor, table: Tensor) -> Tensor:
        """Outputs without the output scale; twice differentiable.

        Args:
            species: [n].
            table: [n, width] features in float64, those of a center first in its row.

        Returns:
            [n, members * outputs].
        """
        evaluation = _Evaluation(self, species, table)
        outputs = _Values.apply(table, evaluation)
        return outputs + _ByWeights.apply(outputs.detach(), evaluation, *evaluation.weights)


def _shape(network: SpeciesNetwork) -> Tensor:
    """As csrc/torch_ops/network_ops.cpp takes it."""
    widths = [network.columns.numel(), *(layer.bias.size(1) for layer in network.layers)]
    activations = [_NUMBERS[type(activation)] for activation in network.activations]
    return torch.tensor([network.members, len(activations), *widths, *activations], dtype=torch.int32)


def _effective_weights(network: SpeciesNetwork) -> Tensor:
    """Weight and bias of all layers of each member, [members, weights]; the first weight takes in scale and
    mixing, so that the inputs are the features without their shift."""
    weights = [tensor.flatten(1) for layer in network.layers for tensor in (layer.weight, layer.bias)]
    first = network.layers[0].weight
    if network.mixing is not None:
        first = first @ network.mixing.mT
    weights[0] = (first * network.scale).flatten(1)
    return torch.cat(weights, dim=1)


class _Evaluation:
    """The networks at given features, with what their passes leave for one another."""

    def __init__(self, networks: NativeNetworks, species: Tensor, table: Tensor):
        self.networks, self.table = networks, table.detach().contiguous()
        self.weights = [_effective_weights(network) for network in networks.networks]
        self.atoms = [torch.nonzero(species == kind).squeeze(1) for kind in range(len(self.weights))]
        widths = [sum(layer.bias.numel() for layer in network.layers) for network in networks.networks]
        self.states = [table.new_empty(len(atoms), width) for atoms, width in zip(self.atoms, widths)]

    def call(self, name: str, kind: int, *more: Tensor) -> None:
        """Call an op for one species."""
        networks = self.networks
        getattr(networks.ops, name)(
            networks.shapes[kind],
            self.weights[kind].detach(),
            self.atoms[kind],
            self.table,
            networks.networks[kind].shift,
            self.states[kind],
            networks.num_threads,
            *more,
        )


class _Values(torch.autograd.Function):
    """Features [n, width] -> outputs [n, members * outputs], as a function of the features alone."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, evaluation: _Evaluation) -> Tensor:
        ctx.evaluation = evaluation
        ctx.save_for_backward(table)
        outputs = table.new_empty(len(table), evaluation.networks.columns)
        for kind in range(len(evaluation.weights)):
            evaluation.call("network_values", kind, outputs)
        return outputs

    @staticmethod
    def backward(ctx: Any, cotangents: Tensor) -> tuple[Tensor, None]:
        evaluation = ctx.evaluation
        return _Gradient.apply(cotangents, *ctx.saved_tensors, evaluation, *evaluation.weights), None


class _ByWeights(torch.autograd.Function):
    """Zeros with the derivatives of the outputs by the weights.

    `_Values` does not have these, so that autograd evaluates none that nobody asked for.
    """

    @staticmethod
    def forward(ctx: Any, outputs: Tensor, evaluation: _Evaluation, *weights: Tensor) -> Tensor:
        ctx.evaluation = evaluation
        return torch.zeros_like(outputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, cotangents: Tensor) -> tuple[Tensor | None, ...]:
        cotangents = cotangents.contiguous()
        gradients = [torch.empty_like(weights) for weights in ctx.evaluation.weights]
        for kind, gradient in enumerate(gradients):
            ctx.evaluation.call("network_weights", kind, cotangents, gradient)
        return None, None, *gradients


class _Gradient(torch.autograd.Function):
    """Cotangents [n, members * outputs] -> gradients by the features [n, width]."""

    @staticmethod
    def forward(
        ctx: Any, cotangents: Tensor, table: Tensor, evaluation: _Evaluation, *weights: Tensor
    ) -> Tensor:
        ctx.evaluation = evaluation
        cotangents = cotangents.contiguous()
        ctx.save_for_backward(cotangents)
        gradients = torch.empty_like(table)
        for kind in range(len(weights)):
            evaluation.call("network_gradient", kind, cotangents, gradients)
        return gradients

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, directions: Tensor) -> tuple[Tensor | None, ...]:
        evaluation = ctx.evaluation
        (cotangents,) = ctx.saved_tensors
        directions, nothing = directions.contiguous(), directions.new_empty(0)
        of_weights = [torch.empty_like(weights) for weights in evaluation.weights]
        of_cotangents = torch.empty_like(cotangents) if ctx.needs_input_grad[0] else nothing
        of_table = torch.empty_like(directions) if evaluation.networks.second else nothing
        for kind, gradient in enumerate(of_weights):
            outputs = (gradient, of_cotangents, of_table)
            evaluation.call("network_second", kind, cotangents, directions, *outputs)
        return (
            of_cotangents if ctx.needs_input_grad[0] else None,
            of_table if evaluation.networks.second else None,
            None,
            *of_weights,
        )
