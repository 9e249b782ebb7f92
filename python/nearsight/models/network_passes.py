"""Passes through dense networks for training, written by hand: values, gradients, and their derivatives.

For layers z = W y + b, y' = a(z) and a cotangent g of the outputs N,

    forward    y → z → y'                          backward   δ = a'(z) dN/dy',   dN/dy = Wᵀ δ
    tangent    ż = W ẏ,  ẏ' = a'(z) ż              adjoint    δ̇ = a''(z) ż dN/dy' + a'(z) d(dN/dy')

The tangent of N along directions v of its inputs is what the forces are made of: v · dN/dx. Its derivatives by
the weights are dW = δ ẏᵀ + δ̇ yᵀ and db = δ̇. So a step with forces takes five products with the widest matrix,
and autograd sees one node per pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nearsight.models.activations import derivatives
from nearsight.models.networks import SpeciesNetwork


@dataclass(frozen=True)
class Layer:
    """A layer at n atoms, for all members [m, ...].

    Attributes:
        weight: W [m, out, in].
        inputs: y [m, n, in].
        slope: a'(z) [m, n, out].
        curvature: a''(z) [m, n, out].
    """

    weight: Tensor
    inputs: Tensor
    slope: Tensor
    curvature: Tensor


@dataclass(frozen=True)
class Adjoint:
    """Of a layer: dN/dy' and δ = dN/dz, [m, n, out]."""

    outer: Tensor
    delta: Tensor


def effective_weights(network: SpeciesNetwork) -> list[Tensor]:
    """Weight and bias of every layer; the first weight takes in scale and mixing, so that the inputs are the
    features without their shift."""
    weights = [tensor for layer in network.layers for tensor in (layer.weight, layer.bias)]
    if network.mixing is not None:
        weights[0] = weights[0] @ network.mixing.mT
    weights[0] = weights[0] * network.scale
    return weights


def forward(
    inputs: Tensor, weights: Sequence[Tensor], activations: Sequence[nn.Module]
) -> tuple[Tensor, list[Layer]]:
    """Outputs [m, n, out] and layers for inputs [n, in]."""
    layers = []
    y = inputs.unsqueeze(0).expand(weights[0].size(0), -1, -1)
    for weight, bias, activation in zip(weights[::2], weights[1::2], activations):
        z = torch.baddbmm(bias.unsqueeze(1), y, weight.mT)
        values = activation(z)
        layers.append(Layer(weight, y, *derivatives(activation, z, values)))
        y = values
    return y, layers


def backward(layers: Sequence[Layer], cotangent: Tensor) -> tuple[Tensor, list[Adjoint]]:
    """dN/dx [m, n, in] for a cotangent [m, n, out], and adjoints of the layers."""
    adjoints: list[Adjoint] = []
    outer = cotangent
    for layer in reversed(layers):
        adjoints.append(Adjoint(outer, layer.slope * outer))
        outer = adjoints[-1].delta @ layer.weight
    return outer, adjoints[::-1]


def tangent(layers: Sequence[Layer], direction: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Of N along directions [m, n, in]: its tangent [m, n, out]; ẏ and ż of every layer."""
    moving, rates = [direction], []
    for layer in layers:
        rates.append(moving[-1] @ layer.weight.mT)
        moving.append(layer.slope * rates[-1])
    return moving.pop(), moving, rates


def adjoints_of_tangent(
    layers: Sequence[Layer], adjoints: Sequence[Adjoint], rates: Sequence[Tensor]
) -> list[Tensor]:
    """δ̇ of every layer, [m, n, out]."""
    found: list[Tensor] = []
    for number in reversed(range(len(layers))):
        delta = layers[number].curvature * rates[number] * adjoints[number].outer
        if found:
            delta += layers[number].slope * (found[-1] @ layers[number + 1].weight)
        found.append(delta)
    return found[::-1]


@dataclass
class _Species:
    """The network of one species at its atoms, with `effective_weights`; `layers` come from the forward pass."""

    network: SpeciesNetwork
    atoms: Tensor
    weights: list[Tensor]
    layers: Sequence[Layer] = ()

    def part(self, values: Tensor) -> Tensor:
        """[all atoms, members * out] -> [members, atoms of the species, out]."""
        return values.index_select(0, self.atoms).unflatten(1, (self.network.members, -1)).transpose(0, 1)


class _Values(torch.autograd.Function):
    """Features [n, width] -> outputs [n, members * out], as a function of the features alone."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, species: Sequence[_Species], width: int, second: bool) -> Tensor:
        ctx.species, ctx.second = species, second
        ctx.save_for_backward(table)
        outputs = table.new_empty(len(table), width)
        for kind in species:
            network = kind.network
            inputs = table.index_select(0, kind.atoms)[:, : network.columns.numel()] - network.shift
            values, kind.layers = forward(inputs, kind.weights, network.activations)
            outputs[kind.atoms] = values.transpose(0, 1).flatten(1)
        return outputs

    @staticmethod
    def backward(ctx: Any, cotangents: Tensor) -> tuple[Tensor, None, None, None]:
        (table,) = ctx.saved_tensors
        weights = [weight for kind in ctx.species for weight in kind.weights]
        return _Gradient.apply(cotangents, table, ctx.species, ctx.second, *weights), None, None, None


class _ByWeights(torch.autograd.Function):
    """Zeros with the derivatives of the outputs by the weights. `_Values` does not have these, so that autograd
    evaluates none that nobody asked for."""

    @staticmethod
    def forward(ctx: Any, outputs: Tensor, species: Sequence[_Species], *weights: Tensor) -> Tensor:
        ctx.species = species
        return torch.zeros_like(outputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, cotangents: Tensor) -> tuple[Tensor | None, ...]:
        gradients: list[Tensor] = []
        for kind in ctx.species:
            _, adjoints = backward(kind.layers, kind.part(cotangents))
            for layer, adjoint in zip(kind.layers, adjoints):
                gradients += [adjoint.delta.mT @ layer.inputs, adjoint.delta.sum(1)]
        return None, None, *gradients


class _Gradient(torch.autograd.Function):
    """Cotangents [n, members * out] -> gradients by the features [n, width]."""

    @staticmethod
    def forward(
        ctx: Any, cotangents: Tensor, table: Tensor, species: Sequence[_Species], second: bool, *weights: Tensor
    ) -> Tensor:
        ctx.species, ctx.second, ctx.adjoints = species, second, []
        gradients = torch.zeros_like(table)
        for kind in species:
            found, adjoints = backward(kind.layers, kind.part(cotangents))
            ctx.adjoints.append(adjoints)
            gradients[kind.atoms, : found.size(2)] = found.sum(0)
        return gradients

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, directions: Tensor) -> tuple[Tensor | None, ...]:
        of_weights: list[Tensor] = []
        by_table = torch.zeros_like(directions) if ctx.second else None
        by_cotangents: Tensor | None = None
        for kind, adjoints in zip(ctx.species, ctx.adjoints):
            members, width = kind.network.members, kind.network.columns.numel()
            direction = directions.index_select(0, kind.atoms)[:, :width].expand(members, -1, -1)
            value, moving, rates = tangent(kind.layers, direction)
            changes = adjoints_of_tangent(kind.layers, adjoints, rates)
            for layer, adjoint, y, change in zip(kind.layers, adjoints, moving, changes):
                of_weights += [
                    torch.baddbmm(adjoint.delta.mT @ y, change.mT, layer.inputs),
                    change.sum(1),
                ]
            if by_table is not None:
                by_table[kind.atoms, :width] = (changes[0] @ kind.layers[0].weight).sum(0)
            if ctx.needs_input_grad[0]:
                if by_cotangents is None:
                    by_cotangents = value.new_zeros(len(directions), members * value.size(2))
                by_cotangents[kind.atoms] = value.transpose(0, 1).flatten(1)
        return by_cotangents, by_table, None, None, *of_weights


def evaluate_networks(
    networks: Sequence[SpeciesNetwork], species: Tensor, table: Tensor, second: bool
) -> Tensor:
    """Outputs of the networks of all atoms, without the output scale; twice differentiable.

    Args:
        networks: by species.
        species: [n].
        table: [n, width] features, those of a center first in its row.
        second: whether second derivatives by the table are needed: its features depend on parameters.

    Returns:
        [n, members * outputs].
    """
    kinds = [
        _Species(network, torch.nonzero(species == number).squeeze(1), effective_weights(network))
        for number, network in enumerate(networks)
    ]
    weights = [weight for kind in kinds for weight in kind.weights]
    width = networks[0].members * networks[0].layers[-1].bias.size(1)
    outputs = _Values.apply(table, kinds, width, second)
    return outputs + _ByWeights.apply(outputs.detach(), kinds, *weights)
