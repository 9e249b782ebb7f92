"""Dipoles of frames, and Born effective charges of atoms: docs/electrostatics.md.

Of several latent charges the first one counts, which has the total charge.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nearsight.couple.coulomb import CoulombCouple
from nearsight.couple.electrostatics import ChargeFrames, slab_normals
from nearsight.couple.sums import sum_frames
from nearsight.couple.system import Charged
from nearsight.errors import ConfigError
from nearsight.neighbors import Graph


def dipoles(charges: Tensor, charged: Charged) -> Tensor:
    """Return Σ q_i r_i of every frame, [F, 3] e·Å, of charges[n, C] e.

    Along periodic directions it depends on which images of the atoms the positions are.
    """
    return sum_frames(charges[:, :1] * charged.positions, charged.frames.frame, charged.frames.pbc.size(0))


class BornCharges:
    """Z_iab = dμ_a/dr_ib of charges q_j = p_j + w_j (Q - Σp) / Σw, where p and w depend on the edges r_jk.

    With the local changes a_j = dp_j + dw_j (Q - Σp) / Σw of charges, A = Σ_j a_j, and the center x̄ = Σwx/Σw,

        Z_i = q_i 1 + Σ_j (x_j - x_i) ⊗ da_j/dr_i - (x̄ - x_i) ⊗ dA/dr_i

    in an open frame. The first sum knows edges only, so that it is the same whatever images of the atoms the
    positions are. The second one is what the other atoms give for A; along periodic directions, where no
    center exists, it is replaced by its mean over atoms, with weights w, so that Σ_i Z_i = Q 1.

    Args:
        couple: of charges.
        readouts: of the model.
        graph: whose edge vectors the readouts depend on.
        charged: the frames.
        create_graph: whether Z is differentiable by parameters.
    """

    def __init__(
        self,
        couple: CoulombCouple,
        readouts: dict[str, Tensor],
        graph: Graph,
        charged: Charged,
        create_graph: bool,
    ):
        self.graph, self.charged, self.create_graph = graph, charged, create_graph
        self.charges = couple.charges(readouts, graph.frame, graph.species, charged.total_charge)[:, 0]
        self.outputs: list[Tensor] = []
        self.cotangents: list[Tensor] = []
        if not couple.fixed:
            p = readouts["charge"].reshape(-1, couple.channels)[:, 0].to(torch.float64)
            w = couple.weights(readouts)
            self.outputs, self.cotangents = [p], [torch.ones_like(p)]
            self.shares = torch.ones_like(p) if w is None else w
            sums = sum_frames(self.shares, graph.frame, graph.num_frames)
            if w is not None:
                missing = charged.total_charge - sum_frames(p, graph.frame, graph.num_frames)
                self.outputs.append(w)
                self.cotangents.append((missing / sums).index_select(0, graph.frame))
            self.shares = self.shares / sums.index_select(0, graph.frame)

    def __call__(self, interactions: int) -> Tensor:
        """Return Z [n, 3, 3] in e, of a model with so many interaction layers.

        Raises:
            ConfigError: a periodic frame, and charges that depend on more than their own edges.
        """
        own = self.charges.view(-1, 1, 1) * torch.eye(3, dtype=torch.float64)
        if not self.outputs:
            return own
        if interactions == 1:
            return own + self._of_edges()
        if bool(self.charged.frames.pbc.any()):
            raise ConfigError(
                "Born effective charges of periodic frames need charges that depend on the neighbors only: "
                f"take a model with one interaction layer, found {interactions}"
            )
        distances = self._from_center()
        columns = [self._of_atoms(self._gradients(distances[:, a])) for a in range(3)]
        return own + torch.stack(columns, dim=1)

    def _of_edges(self) -> Tensor:
        frame, count = self.graph.frame, self.graph.num_frames
        gradients = self._gradients(torch.ones_like(self.shares))
        outer = self.graph.edge_vectors.to(torch.float64).unsqueeze(2) * gradients.unsqueeze(1)
        neighbors = torch.zeros(len(frame), 3, 3, dtype=torch.float64)
        neighbors = neighbors.index_add(0, self.graph.edge_index[1], -outer)
        free = open_directions(self.charged.frames)
        mean = (torch.eye(3, dtype=torch.float64) - free) @ sum_frames(neighbors, frame, count)
        distances = torch.bmm(free.index_select(0, frame), self._from_center().unsqueeze(2))
        moved = distances * self._of_atoms(gradients).unsqueeze(1)
        return neighbors + moved - self.shares.view(-1, 1, 1) * mean.index_select(0, frame)

    def _gradients(self, factors: Tensor) -> Tensor:
        """Return the gradients of Σ_j factor_j a_j by the edge vectors, [E, 3]."""
        (gradients,) = torch.autograd.grad(
            self.outputs,
            self.graph.edge_vectors,
            [factors * cotangents for cotangents in self.cotangents],
            retain_graph=True,
            create_graph=self.create_graph,
        )
        return gradients.to(torch.float64)

    def _of_atoms(self, gradients: Tensor) -> Tensor:
        """Return gradients by the positions of atoms, [n, 3]."""
        center, neighbor = self.graph.edge_index
        sums = torch.zeros(self.graph.num_atoms, 3, dtype=torch.float64)
        return sums.index_add(0, neighbor, gradients).index_add(0, center, -gradients)

    def _from_center(self) -> Tensor:
        """Return x_i - x̄, [n, 3] Å."""
        frame, x = self.graph.frame, self.charged.positions
        centers = sum_frames(self.shares.unsqueeze(1) * x, frame, self.graph.num_frames)
        return x - centers.index_select(0, frame)


def open_directions(frames: ChargeFrames) -> Tensor:
    """Return what projects vectors on the directions that are not periodic, [F, 3, 3]."""
    normal = slab_normals(frames.boxes, frames.pbc)
    slab = normal.unsqueeze(2) * normal.unsqueeze(1)
    free = torch.where(frames.pbc.any(1).view(-1, 1, 1), slab, torch.eye(3, dtype=slab.dtype))
    return torch.where(frames.pbc.all(1).view(-1, 1, 1), 0.0, free)
