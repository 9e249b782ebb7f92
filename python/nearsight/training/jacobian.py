"""Rows of the Jacobian of a model's residuals: derivatives of energies, forces and virials by the parameters.

With N_i the network's output at center i on its features x_i, the energy's row is Σ_i dN_i/dθ. Forces and
virials are -Σ_i v_i · dN_i/dx_i with directions v_i = dx_i/dR or dx_i/dε that do not depend on θ, so their
rows are -Σ_i d/dθ of the tangent of N_i along v_i. For dense layers z = W y + b, y' = a(z) that tangent and
its gradient are, with δ = dN/dz,

    ż = W ẏ,  ẏ' = a'(z) ż        δ̇ = a''(z) ż dN/dy' + a'(z) d(dN/dy')        dW: δ ẏᵀ + δ̇ yᵀ,  db: δ̇

which is evaluated for all directions at once; the sum over the neighbors of an atom is a matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nearsight.models.bpnn import BPNN
from nearsight.models.networks import SpeciesNetwork
from nearsight.training.batches import Batch
from nearsight.training.stored import STRAINS

_ATOMS_AT_ONCE = 256  # whose directions are in memory


@dataclass(frozen=True)
class _Layer:
    """A layer at the centers of one species, [n, ...]: inputs y, a', a'', dN/dy' and dN/dz."""

    weight: Tensor
    inputs: Tensor
    slope: Tensor
    curvature: Tensor
    adjoint: Tensor
    delta: Tensor


def model_rows(model: BPNN, batch: Batch, atoms: Tensor, virial: bool) -> Tensor:
    """Derivatives of a batch's results by all parameters of the model, in their order; in double.

    Args:
        model: with one energy per atom.
        batch: with `collective` derivatives stored.
        atoms: whose forces get rows, ascending.
        virial: whether virials get rows.

    Returns:
        [rows, parameters]: the energies of all frames, then the components `STRAINS` of their virials, then
        the forces by atom.
    """
    graph = batch.graph
    features = torch.cat([stored.features for stored in batch.stored])
    collective = torch.cat([stored.collective for stored in batch.stored]).double()
    parts = []
    for kind, network in enumerate(model.networks):
        centers = torch.nonzero(graph.species == kind).squeeze(1)
        frame, width = graph.frame[centers], network.columns.numel()
        layers = _layers(network, features[centers, :width])
        rows = [_energy_rows(layers, frame, graph.num_frames)]
        if virial:
            slots, entries = _slots(frame, graph.num_frames)
            directions = collective.new_zeros(graph.num_frames * entries, len(STRAINS), width)
            directions[slots] = collective[centers, 3:, :width]
            of_slot = torch.zeros(len(directions), dtype=torch.int64)
            of_slot[slots] = torch.arange(len(centers))
            rows.append(
                -_tangent_rows(network, layers, directions.view(graph.num_frames, entries, 6, width), of_slot)
            )
        for some in atoms.split(_ATOMS_AT_ONCE) if len(atoms) else ():
            directions, of_slot = _force_directions(batch, some, centers, collective)
            rows.append(-_tangent_rows(network, layers, directions[..., :width], of_slot))
        parts.append(torch.cat(rows))
    return torch.cat(parts, dim=1) * model.output_scale


def _layers(network: SpeciesNetwork, features: Tensor) -> list[_Layer]:
    """Forward and backward through the network of one species, on features [n, functions]."""
    inputs = [(features - network.shift) @ _mixing(network)]
    slopes, curvatures = [], []
    for layer, activation in zip(network.layers, network.activations):
        values, slope, curvature = _activate(activation, inputs[-1] @ layer.weight[0].T + layer.bias[0])
        inputs.append(values)
        slopes.append(slope)
        curvatures.append(curvature)
    layers: list[_Layer] = []
    adjoint = torch.ones_like(inputs.pop())
    for layer, y, slope, curvature in reversed(list(zip(network.layers, inputs, slopes, curvatures))):
        weight = layer.weight[0].detach()
        layers.insert(0, _Layer(weight, y.detach(), slope, curvature, adjoint, slope * adjoint))
        adjoint = layers[0].delta @ weight
    return layers


def _mixing(network: SpeciesNetwork) -> Tensor:
    """What the features are multiplied by."""
    scale = torch.diag(network.scale)
    return scale if network.mixing is None else scale @ network.mixing


def _activate(activation: nn.Module, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """a(z), a'(z) and a''(z), element by element."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        values = activation(z)
        (slope,) = torch.autograd.grad(values.sum(), z, create_graph=True)
        if not slope.requires_grad:  # linear
            return values.detach(), slope, torch.zeros_like(z)
        (curvature,) = torch.autograd.grad(slope.sum(), z, materialize_grads=True)
    return values.detach(), slope.detach(), curvature


def _energy_rows(layers: list[_Layer], frame: Tensor, num_frames: int) -> Tensor:
    """Σ_i dN_i/dθ over the centers of each frame, [num_frames, parameters of the network]."""
    rows = []
    for number in range(num_frames):
        mine = torch.nonzero(frame == number).squeeze(1)
        delta = [(layer.delta[mine], layer.inputs[mine]) for layer in layers]
        rows.append(torch.cat([part.reshape(-1) for d, y in delta for part in (d.T @ y, d.sum(0))]))
    return torch.stack(rows)


def _tangent_rows(
    network: SpeciesNetwork, layers: list[_Layer], directions: Tensor, centers: Tensor
) -> Tensor:
    """Derivatives by θ of sums over entries of the tangent of N_i along v.

    Args:
        network: of one species.
        layers: at its centers.
        directions: [rows, entries, components, features] v by the features, without scale and mixing.
        centers: [rows * entries] number of the center of each entry.

    Returns:
        [rows * components, parameters of the network].
    """
    r, m, q, _ = directions.shape
    mixing = _mixing(network)

    def of_center(values: Tensor) -> Tensor:
        return values[centers].view(r, m, 1, -1)

    moving, rates = [directions], []
    for layer in layers:
        weight = layer.weight.T if rates else mixing @ layer.weight.T
        rates.append(moving[-1] @ weight)
        moving.append(of_center(layer.slope) * rates[-1])
    columns: list[Tensor] = []
    adjoint_rate: Tensor | None = None
    for number, layer in reversed(list(enumerate(layers))):
        delta_rate = of_center(layer.curvature * layer.adjoint) * rates[number]
        if adjoint_rate is not None:
            delta_rate += of_center(layer.slope) * adjoint_rate
        fan_out, fan_in = layer.weight.shape
        delta, inputs = layer.delta[centers].view(r, m, fan_out), layer.inputs[centers].view(r, m, fan_in)
        first = torch.bmm(delta.transpose(1, 2), moving[number].reshape(r, m, q * fan_in))
        first = first.view(r, fan_out, q, fan_in).transpose(1, 2)
        second = torch.bmm(delta_rate.reshape(r, m, q * fan_out).transpose(1, 2), inputs)
        weight_rows = (first @ mixing if number == 0 else first) + second.view(r, q, fan_out, fan_in)
        columns = [weight_rows.reshape(r * q, -1), delta_rate.sum(1).view(r * q, fan_out), *columns]
        adjoint_rate = delta_rate @ layer.weight
    return torch.cat(columns, dim=1)


def _force_directions(
    batch: Batch, atoms: Tensor, centers: Tensor, collective: Tensor
) -> tuple[Tensor, Tensor]:
    """dG_i/dR_k of the centers i of one species for some atoms k.

    Args:
        batch: with derivatives stored.
        atoms: k.
        centers: all atoms of the species.
        collective: of all atoms, see `Stored`.

    Returns:
        [atoms, entries, 3, width] and the place among `centers` of each entry's; unused entries are zero.
    """
    graph, width = batch.graph, collective.size(2)
    center, neighbor = graph.edge_index
    row = torch.full_like(graph.species, -1)
    row[atoms] = torch.arange(len(atoms))
    place = torch.full_like(graph.species, -1)
    place[centers] = torch.arange(len(centers))
    edges = torch.nonzero((row[neighbor] >= 0) & (place[center] >= 0)).squeeze(1)
    own = atoms[place[atoms] >= 0]
    slots, entries = _slots(torch.cat([row[neighbor[edges]], row[own]]), len(atoms))

    directions = collective.new_zeros(len(atoms) * entries, 3, width)
    directions[slots[len(edges) :]] = collective[own, :3]
    of_edge = torch.full_like(center, -1)
    of_edge[edges] = slots[: len(edges)]
    counts = [len(stored.derivatives.centers) for stored in batch.stored]
    for stored, some in zip(batch.stored, of_edge.split(counts)):
        stored.derivatives.apply("stored_gather", some, directions, num_threads=1)
    where = torch.zeros(len(directions), dtype=torch.int64)
    where[slots] = place[torch.cat([center[edges], own])]
    return directions.view(len(atoms), entries, 3, width), where


def _slots(rows: Tensor, num_rows: int) -> tuple[Tensor, int]:
    """Places of entries in a matrix with as many columns as the longest row has entries, and that number."""
    counts = torch.bincount(rows, minlength=num_rows)
    longest = int(counts.max())
    order = torch.argsort(rows, stable=True)
    slots = torch.empty_like(rows)
    start = torch.cumsum(counts, 0) - counts
    slots[order] = rows[order] * longest + torch.arange(len(rows)) - start[rows[order]]
    return slots, longest
