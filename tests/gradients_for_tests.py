"""The gradient of a loss with forces, natively and by autograd twice through the torch module."""

from __future__ import annotations

import torch

from nearsight.couple import evaluate
from nearsight.models import training_module
from nearsight.neighbors import Graph


def assert_native_equals_torch(model: torch.nn.Module, graph: Graph, rtol: float) -> None:
    """Compare energies, forces, virials and gradients; absolute tolerance: rtol times the largest number."""
    parameters = list(model.parameters())
    outcomes = []
    for backend in ("torch", "native"):
        results = evaluate(training_module(model, backend), graph, model.couple, create_graph=True)
        loss = (results.forces**2).sum() + results.energy.sum() ** 2 + (results.virial**2).sum()
        gradient = torch.autograd.grad(loss, parameters)
        outcomes.append([results.energy, results.forces, results.virial, *gradient])
    for expected, found in zip(*outcomes):
        atol = rtol * float(expected.detach().abs().max())
        torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)
