"""The two heavy steps of equivariant message passing as functions of tensors, and linear maps around them.

Features of atoms are x[atom, component, channel]; components are those of a list of irreps, one after another
(`nearsight.models.irreps`). Everything is scriptable and twice differentiable.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

_FIRST_OUTPUTS = 0.2  # root mean square of what the first layer of a network of distances begins with


def edge_convolution(
    sources: Tensor,
    radial: Tensor,
    harmonics: Tensor,
    edge_index: Tensor,
    couplings: Tensor,
    sizes: list[int],
    paths: list[list[int]],
    num_rows: int,
) -> Tensor:
    """Return A_i[p, m3, k] = Σ_j R_pk(r_ij) Σ_m1 Φ_p[m3, m1](r̂_ij) u_j[(irrep1, m1), k].

    Args:
        sources: u [M, components, K].
        radial: R [E, P, K].
        harmonics: Y [E, (l_max + 1)²].
        edge_index: [2, E] center and neighbor, sorted by center; centers are below num_rows.
        couplings: [(l_max + 1)², sizes of all Φ_p]: Φ = Y · couplings, m3 slow, m1 fast.
        sizes: components of each irrep of the sources.
        paths: of each p the number of irrep1 among these, 2 l1 + 1 and 2 l3 + 1.
        num_rows: of the result.

    Returns:
        [num_rows, Σ_p (2 l3 + 1), K].
    """
    # Edges in a rectangle, [num_rows, width]: then the sums over neighbors are products of matrices.
    width, places = edge_rectangle(edge_index[0], num_rows)
    neighbors = torch.zeros(num_rows * width, dtype=torch.int64, device=places.device)
    gathered = sources.index_select(0, neighbors.index_copy(0, places, edge_index[1]))
    functions = in_rectangle(radial, places, num_rows * width)
    turned = in_rectangle(harmonics @ couplings, places, num_rows * width)
    irreps = gathered.split(sizes, dim=1)
    radials = functions.unbind(1)
    blocks = turned.split([path[1] * path[2] for path in paths], dim=1)
    parts: list[Tensor] = []
    for p, path in enumerate(paths):
        irrep, size1, size3 = path[0], path[1], path[2]
        scaled = radials[p].unsqueeze(1) * irreps[irrep]
        matrices = blocks[p].reshape(num_rows, width, size3, size1)
        matrices = matrices.transpose(1, 2).reshape(num_rows, size3, width * size1)
        parts.append(torch.bmm(matrices, scaled.reshape(num_rows, width * size1, sources.size(2))))
    return torch.cat(parts, dim=1)


def edge_rectangle(centers: Tensor, num_rows: int) -> tuple[int, Tensor]:
    """Return the largest number of edges of a center, and the place of every edge in [num_rows, so many].

    centers: [E], sorted.
    """
    counts = torch.bincount(centers, minlength=num_rows)
    width = int(counts.max()) if num_rows > 0 else 0
    starts = torch.cumsum(counts, 0) - counts
    first = torch.arange(centers.size(0), device=centers.device) - starts.index_select(0, centers)
    return width, centers * width + first


def in_rectangle(values: Tensor, places: Tensor, size: int) -> Tensor:
    """Return values of edges [E, …] at their places among `size`, zeros elsewhere."""
    shape = [size] + list(values.shape[1:])  # noqa: RUF005
    return torch.zeros(shape, dtype=values.dtype, device=values.device).index_copy(0, places, values)


def symmetric_contraction(
    messages: Tensor,
    weights: Tensor,
    species: Tensor,
    coefficients: Tensor,
    factors: list[Tensor],
    sums: list[Tensor],
    sizes: list[int],
) -> Tensor:
    """Return B_i[c, k] = Σ_η w[z_i, η, k] P_η[c](m_i[:, k]), polynomials of the components of each channel.

    The last factor of all monomials first, so that monomials with the same other factors are one from there
    on, and so forth (Horner's scheme); see `horner_tables`.

    Args:
        messages: m [n, components, K].
        weights: w [species, paths, K].
        species: z [n].
        coefficients: [T, paths] of each term in P_η.
        factors: of each stage, what every term is multiplied by: a component counted from 1, or 0 for 1.
        sums: of each stage, the term of the next one that it is added to; of the last stage c.
        sizes: of each stage, number of sums.

    Returns:
        [n, components of the result, K].
    """
    n, _, channels = messages.shape
    ones = torch.ones(1, n, channels, dtype=messages.dtype, device=messages.device)
    m = torch.cat([ones, messages.transpose(0, 1)])
    contracted = torch.matmul(coefficients, weights).transpose(0, 1)  # [T, species, K]
    terms = contracted.index_select(1, species)
    for factor, place, size in zip(factors, sums, sizes):
        zeros = torch.zeros(size, n, channels, dtype=messages.dtype, device=messages.device)
        terms = zeros.index_add(0, place, terms * m.index_select(0, factor))
    return terms.transpose(0, 1)


def horner_tables(terms: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Return `factors` and `sums` of `symmetric_contraction` for distinct terms [T, 1 + degree].

    A term is c and the components of its monomial, -1 for a factor of 1.
    """
    factors, sums = [], []
    for _ in range(terms.size(1) - 2):
        shorter, place = torch.unique(terms[:, :-1], dim=0, return_inverse=True)
        factors.append(terms[:, -1] + 1)
        sums.append(place)
        terms = shorter
    return [*factors, terms[:, 1] + 1], [*sums, terms[:, 0].clone()]


def per_species(x: Tensor, matrices: Tensor, species: Tensor) -> Tensor:
    """Return Σ_k W[z][k', k] x[n, c, k] with the matrices W [species, K', K] of each atom's species."""
    out = torch.zeros(x.size(0), x.size(1), matrices.size(1), dtype=x.dtype, device=x.device)
    for kind in range(matrices.size(0)):
        atoms = torch.nonzero(species == kind).squeeze(1)
        if atoms.size(0) > 0:
            out = out.index_add(0, atoms, x.index_select(0, atoms) @ matrices[kind].T)
    return out


def root_mean_square(x: Tensor) -> Tensor:
    """Return the root mean square of all elements, 1 where it is 0 or there are none."""
    size = torch.linalg.vector_norm(x) / max(x.numel(), 1) ** 0.5
    return torch.where(size > 0, size, torch.ones_like(size))


class Weight(nn.Module):
    """A trained tensor, as values of order one times a fixed scale: its root mean square at the start.

    So one step of Adam changes all tensors of a model by the same fraction.

    Args:
        tensor: at the start.
        by_column: each column of a matrix has a scale of its own; inputs that matter less keep doing so.
    """

    def __init__(self, tensor: Tensor, by_column: bool = False):
        super().__init__()
        tensor = tensor.detach().to(torch.float64)
        columns = [root_mean_square(column) for column in tensor.unbind(1)] if by_column else []
        self.register_buffer("scale", torch.stack(columns) if columns else root_mean_square(tensor))
        self.values = nn.Parameter(tensor / self.scale)

    def forward(self) -> Tensor:
        """Return the tensor."""
        return self.values * self.scale


class Dense(nn.Module):
    """Dense layers without bias, silu between them: [n, in] -> [n, out].

    Args:
        weights: of the layers.
        by_input: see `Weight`, for the first layer.
    """

    def __init__(self, weights: Sequence[Tensor], by_input: bool = False):
        super().__init__()
        self.layers = nn.ModuleList(
            Weight(weight, by_input and number == 0) for number, weight in enumerate(weights)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the last layer's outputs."""
        for number, weight in enumerate(self.layers):
            if number > 0:
                x = silu(x)
            x = x @ weight().T
        return x

    @torch.jit.unused
    def normalize(self, x: Tensor) -> None:
        """Give each layer outputs of root mean square 1 for these inputs [n, in].

        Of the first layer smaller ones: silu is nearly linear there, and the functions begin smooth.
        """
        for number, weight in enumerate(self.layers):
            if number > 0:
                x = silu(x)
            x = x @ weight().T
            size = root_mean_square(x) / (1.0 if number > 0 else _FIRST_OUTPUTS)
            weight.scale.div_(size)
            x = x / size


class EdgeNetwork(nn.Module):
    """A network of the distance that ends at the cutoff.

    Args:
        weights: of its layers.
        envelope: "basis" or "functions", what the envelope multiplies: inputs or results.
        density: the results are tanh(y²) of the network's outputs y.
    """

    def __init__(self, weights: Sequence[Tensor], envelope: str, density: bool = False):
        super().__init__()
        self.network = Dense(weights, by_input=True)
        self.first, self.density = envelope == "basis", density

    def forward(self, basis: Tensor, envelope: Tensor) -> Tensor:
        """Return [E, out] from basis functions [E, n] and the envelope [E, 1]."""
        y = self.network(basis * envelope if self.first else basis)
        if self.density:
            y = torch.tanh(y**2)
        return y if self.first else y * envelope

    @torch.jit.unused
    def normalize(self, basis: Tensor, envelope: Tensor) -> None:
        """See `Dense.normalize`."""
        self.network.normalize(basis * envelope if self.first else basis)


class IrrepsLinear(nn.Module):
    """A map of the channels for each irrep: [n, components, K] -> [n, components, K'].

    Args:
        starts: first component of each irrep in x, and the end of the last one.
        weights: [K', K] of each irrep, or [species, K', K].
    """

    def __init__(self, starts: Sequence[int], weights: Sequence[Tensor]):
        super().__init__()
        self.starts = list(starts)
        self.weights = nn.ModuleList(Weight(weight) for weight in weights)

    def forward(self, x: Tensor, species: Tensor) -> Tensor:
        """Return the mapped features of atoms species[n]."""
        parts: list[Tensor] = []
        for number, weight in enumerate(self.weights):
            part, matrix = x[:, self.starts[number] : self.starts[number + 1]], weight()
            if matrix.dim() == 3:
                parts.append(per_species(part, matrix, species))
            else:
                parts.append(part @ matrix.T)
        return torch.cat(parts, dim=1)


class PathLinear(nn.Module):
    """The sum over paths and channels that gives messages: A [n, Σ_p (2 l3 + 1), K] -> [n, components, K].

    Args:
        sizes: components of each irrep.
        weights: [K, paths * K] of each irrep, paths slow.
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[Tensor]):
        super().__init__()
        self.sizes = list(sizes)
        self.blocks = [size * weight.size(1) // weight.size(0) for size, weight in zip(sizes, weights)]
        self.weights = nn.ModuleList(Weight(weight) for weight in weights)

    def forward(self, a: Tensor) -> Tensor:
        """Return the messages."""
        parts: list[Tensor] = []
        blocks = a.split(self.blocks, dim=1)
        for number, weight in enumerate(self.weights):
            size = self.sizes[number]
            block = blocks[number].reshape(a.size(0), self.blocks[number] // size, size, a.size(2))
            parts.append(block.transpose(1, 2).flatten(2) @ weight().T)
        return torch.cat(parts, dim=1)
