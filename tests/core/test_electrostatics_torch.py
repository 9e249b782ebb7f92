"""Electrostatics in torch against the core, central differences, and itself in batches and as TorchScript."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nearsight.couple import ChargeFrames, Electrostatics, charge_frame, join_charge_frames, project_charges
from nearsight.errors import ConfigError, EvaluationError
from nearsight.export.torchscript import freeze, script
from nearsight.lib import _core
from nearsight.neighbors.torch_neighbors import torch_neighbors

from .charged_systems import OPEN, PERIODIC, SLAB, SYSTEMS, System, crystal, differences, random_system

KINDS = SYSTEMS | {
    "gaussian slab": {"pbc": SLAB, "widths": True, "net": 1.0},
    "open": {"pbc": OPEN, "net": 1.0},
    "open gaussian": {"pbc": OPEN, "widths": True},
}


@pytest.fixture(scope="module", params=["eager", "scripted", "frozen"])
def module(request):
    return {"eager": lambda m: m, "scripted": script, "frozen": lambda m: freeze(script(m))}[request.param](
        Electrostatics()
    )


def set_up(system: System, **options):
    return _core.Pme(*system.arguments(), **options)


def frame_of(system: System, pme) -> ChargeFrames:
    return charge_frame(system.positions, system.cell, system.pbc, pme, system.widths)


def tensors(*systems: System):
    """Positions, charges of one channel, and widths of a batch."""
    positions = torch.tensor(np.concatenate([s.positions for s in systems]), requires_grad=True)
    charges = torch.tensor(np.concatenate([s.charges for s in systems]))[:, None].requires_grad_(True)
    widths = [np.zeros(len(s.charges)) if s.widths is None else s.widths for s in systems]
    return positions, charges, torch.tensor(np.concatenate(widths), requires_grad=True)


def evaluate(module, frames: ChargeFrames, positions, charges, widths):
    """What the core gives for one frame."""
    strain = torch.zeros_like(frames.boxes, requires_grad=True)
    energy = module(positions, charges, frames, widths, strain)
    by_position, by_charge, by_strain = torch.autograd.grad(energy.sum(), (positions, charges, strain))
    virial = -0.5 * (by_strain + by_strain.transpose(1, 2))
    return {
        "energy": energy.detach().numpy(),
        "potentials": by_charge[:, 0].numpy(),
        "forces": -by_position.numpy(),
        "virial": virial[0].numpy(),
    }


def assert_same(found, expected, tolerance):
    for key, values in found.items():
        scale = np.abs(expected[key]).max()
        np.testing.assert_allclose(values, expected[key], rtol=0, atol=tolerance * scale, err_msg=key)


@pytest.mark.parametrize("kind", KINDS)
def test_the_core_with_the_same_parameters(module, kind):
    system = random_system(41, 60, **KINDS[kind])
    pme = set_up(system, rtol=1e-5)
    expected = pme.evaluate(*system.arguments())
    for _ in range(3):  # TorchScript is specialized in its first calls
        assert_same(evaluate(module, frame_of(system, pme), *tensors(system)), expected, 1e-12)


@pytest.mark.parametrize("order", [4, 5, 6, 7, 8])
def test_orders_of_splines(order):
    system = random_system(42, net=2.0)
    pme = set_up(system, rtol=1e-4, order=order)
    found = evaluate(Electrostatics(), frame_of(system, pme), *tensors(system))
    assert_same(found, pme.evaluate(*system.arguments()), 1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_ewald(kind):
    system = random_system(43, **KINDS[kind])
    found = evaluate(Electrostatics(), frame_of(system, set_up(system, rtol=1e-9)), *tensors(system))
    assert_same(found, _core.ewald(*system.arguments()), 3e-8)


def test_ewald_to_round_off():
    system = random_system(25, 40, net=1.0)
    pme = set_up(system, rtol=1e-12, cutoff=14.0, order=8)
    found = evaluate(Electrostatics(), frame_of(system, pme), *tensors(system))
    assert_same(found, _core.ewald(*system.arguments()), 1e-11)


@pytest.mark.parametrize("name", ["NaCl", "CaF2", "bcc"])
def test_lattice_energies(name):
    system = crystal(name)
    found = evaluate(Electrostatics(), frame_of(system, set_up(system, rtol=1e-6)), *tensors(system))
    assert found["energy"].item() == pytest.approx(system.energy, rel=1e-6)


def test_mesh_smaller_than_the_spline():
    system = random_system(30, 2, spacing=1.6)
    pme = set_up(system, rtol=1e-5, cutoff=9.0, order=8)
    assert min(pme.parameters["mesh"]) < 8
    found = evaluate(Electrostatics(), frame_of(system, pme), *tensors(system))
    assert_same(found, pme.evaluate(*system.arguments()), 1e-12)


def test_positions_need_not_be_wrapped():
    system = random_system(44, net=1.0)
    pme = set_up(system, rtol=1e-4)
    shifts = np.random.default_rng(0).integers(-3, 4, (24, 3))
    far = system._replace(positions=system.positions + shifts @ system.cell)
    expected = evaluate(Electrostatics(), frame_of(system, pme), *tensors(system))
    found = evaluate(Electrostatics(), frame_of(far, pme), *tensors(far))
    for key, values in found.items():  # forces of far atoms have a larger moment, so no virial of theirs
        np.testing.assert_allclose(values, expected[key], rtol=0, atol=1e-10, err_msg=key)


@pytest.mark.parametrize("kind", KINDS)
def test_derivatives_of_a_coarse_mesh(kind):
    """Central differences at the same pairs; a strain deforms the box with its vacuum."""
    system = random_system(45, 9, **KINDS[kind])
    frames = frame_of(system, set_up(system, rtol=0.05, order=5))

    def energy(changed: System) -> float:
        deformed = frames.boxes @ torch.from_numpy(np.linalg.solve(system.cell, changed.cell))
        with torch.no_grad():
            positions, charges, widths = tensors(changed)
            return Electrostatics()(positions, charges, frames._replace(boxes=deformed), widths).item()

    found = evaluate(Electrostatics(), frames, *tensors(system))
    potentials, forces, virial = differences(energy, system, step=2e-3)
    some = {"potentials": found["potentials"][:4], "forces": found["forces"][:4], "virial": found["virial"]}
    assert_same(some, {"potentials": potentials, "forces": forces, "virial": virial}, 1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_second_derivatives(kind):
    """Of two channels, by positions, charges, widths and strain."""
    system = random_system(46, 3, **KINDS[kind])
    frames = frame_of(system, set_up(system, rtol=0.1, cutoff=5.0 if system.widths is None else 0.0))
    positions, charges, widths = tensors(system)
    charges = torch.stack([charges[:, 0].detach(), torch.tensor([0.3, 1.1, -0.4])], dim=1).requires_grad_(
        True
    )
    strain = torch.zeros(1, 3, 3, dtype=torch.float64, requires_grad=True)

    def energy(positions, charges, widths, strain):
        return Electrostatics()(positions, charges, frames, widths, strain)

    inputs = (positions, charges, widths, strain)
    assert torch.autograd.gradgradcheck(energy, inputs, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_mixed_derivatives_are_those_of_the_core(kind):
    """Forces are quadratic in charges, so a difference of the core's is exact."""
    system = random_system(47, **KINDS[kind])
    pme, direction = set_up(system, rtol=1e-4), np.random.default_rng(2).normal(size=24)
    more, less = (
        pme.evaluate(*system._replace(charges=system.charges + sign * direction).arguments())["forces"]
        for sign in (1, -1)
    )
    positions, charges, widths = tensors(system)
    energy = Electrostatics()(positions, charges, frame_of(system, pme), widths)
    (by_charge,) = torch.autograd.grad(energy, charges, create_graph=True)
    (mixed,) = torch.autograd.grad(by_charge[:, 0] @ torch.from_numpy(direction), positions)
    np.testing.assert_allclose(-mixed.numpy(), 0.5 * (more - less), rtol=0, atol=1e-11 * np.abs(more).max())


def mixed_batch():
    systems = [random_system(48 + k, 12 + k, **options) for k, options in enumerate(KINDS.values())]
    systems.append(systems[0]._replace(charges=systems[0].charges[::-1].copy()))  # the mesh of the first
    pmes = [set_up(system, rtol=1e-4) for system in systems[:-1]]
    pmes.append(pmes[0])
    return systems, pmes


def test_a_batch_of_all_kinds(module):
    systems, pmes = mixed_batch()
    singles = [frame_of(system, pme) for system, pme in zip(systems, pmes)]
    frames = join_charge_frames([join_charge_frames(singles[:3]), *singles[3:]])
    positions, charges, widths = tensors(*systems)
    other = charges.detach().flip(0)
    strain = torch.zeros_like(frames.boxes, requires_grad=True)
    energy = module(positions, torch.cat([charges, other], dim=1), frames, widths, strain)
    gradients = torch.autograd.grad(energy.sum(), (positions, strain))
    start = 0
    for number, (system, pme) in enumerate(zip(systems, pmes)):
        atoms = slice(start, start + len(system.charges))
        start = atoms.stop
        channels = [system, system._replace(charges=other[atoms, 0].numpy())]
        expected = [pme.evaluate(*channel.arguments()) for channel in channels]
        virial = -0.5 * (gradients[1][number] + gradients[1][number].T)
        found = {
            "energy": energy[number].item(),
            "forces": -gradients[0][atoms].numpy(),
            "virial": virial.numpy(),
        }
        assert_same(found, {key: expected[0][key] + expected[1][key] for key in found}, 1e-12)


@pytest.mark.parametrize("module", ["scripted", "frozen"], indirect=True)
def test_second_derivatives_of_a_script(module):
    systems, pmes = mixed_batch()
    frames = join_charge_frames([frame_of(*one) for one in zip(systems, pmes)])
    inputs = tensors(*systems)

    def of(energies):
        first = torch.autograd.grad((energies**2).sum(), inputs, create_graph=True)
        return [*first, *torch.autograd.grad(sum((g**2).sum() for g in first), inputs)]

    expected = of(Electrostatics()(inputs[0], inputs[1], frames, inputs[2]))
    for _ in range(3):
        found = of(module(inputs[0], inputs[1], frames, inputs[2]))
        for a, b in zip(found, expected):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-11 * b.abs().max().item())


def test_points_are_gaussians_without_width():
    system = random_system(49, net=1.0)
    frames = frame_of(system, set_up(system, rtol=1e-4))
    positions, charges, widths = tensors(system)
    without = evaluate(Electrostatics(), frames, positions, charges, None)
    assert_same(evaluate(Electrostatics(), frames, positions, charges, widths), without, 1e-14)


def test_charges_in_single_precision():
    system = random_system(50)
    frames = frame_of(system, set_up(system, rtol=1e-4))
    positions, charges, _ = tensors(system)
    single = charges.float()
    energy = Electrostatics()(positions, single, frames)
    assert energy.dtype == torch.float64
    assert energy.item() == Electrostatics()(positions, single.double(), frames).item()


class Simulation(torch.nn.Module):
    """What a module for OpenMM does: pairs from its own neighbor search, in the box of every step."""

    def __init__(self, parameters):
        super().__init__()
        self.sums = Electrostatics()
        self.cutoff = float(parameters["cutoff"])
        for name in ("splitting", "order", "mesh"):
            self.register_buffer(name, torch.from_numpy(np.array([parameters[name]])))

    def forward(self, positions: torch.Tensor, charges: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
        edges, shifts, _ = torch_neighbors(positions, cell, [True, True, True], self.cutoff)
        x, y, z = shifts.unbind(1)
        forward = (x > 0) | ((x == 0) & ((y > 0) | ((y == 0) & (z > 0))))
        once = torch.nonzero((edges[0] < edges[1]) | ((edges[0] == edges[1]) & forward)).squeeze(1)
        atoms = edges[1].index_select(0, once)
        frames = ChargeFrames(
            frame=torch.zeros(positions.size(0), dtype=torch.int64),
            boxes=cell.unsqueeze(0),
            pbc=torch.ones(1, 3, dtype=torch.bool),
            splitting=self.splitting,
            cutoff=torch.full((1,), self.cutoff, dtype=torch.float64),
            order=self.order,
            mesh=self.mesh,
            image_atoms=atoms,
            image_shifts=shifts.index_select(0, once),
            pairs=torch.stack([edges[0].index_select(0, once), torch.arange(once.size(0))]),
        )
        return self.sums(positions, charges, frames)


def test_a_frozen_module_that_makes_its_own_frames():
    system = random_system(51, net=1.0)
    pme = set_up(system, rtol=1e-4)
    expected = pme.evaluate(*system.arguments())
    simulation = freeze(script(Simulation(pme.parameters)))
    positions, charges, _ = tensors(system)
    for _ in range(3):
        energy = simulation(positions, charges, torch.from_numpy(system.cell))
        (gradient,) = torch.autograd.grad(energy, positions)
        assert_same({"energy": energy.item(), "forces": -gradient.numpy()}, expected, 1e-12)


@pytest.mark.parametrize(
    ("other", "error", "message"),
    [
        (lambda s: None, ConfigError, "a periodic frame needs the parameters of a lattice sum, found none"),
        (lambda s: set_up(s._replace(charges=0 * s.charges)), ConfigError, "charges that are not all zero"),
        (
            lambda s: set_up(s._replace(pbc=PERIODIC)),
            EvaluationError,
            "the periodic directions are not those",
        ),
    ],
)
def test_parameters_that_do_not_fit(other, error, message):
    system = random_system(52, pbc=SLAB)
    with pytest.raises(error, match=message):
        frame_of(system, other(system))


def test_a_slab_that_has_outgrown_its_vacuum():
    system = random_system(54, pbc=SLAB)
    pme, risen = set_up(system), system.positions.copy()
    risen[0] += 3 * np.cross(system.cell[0], system.cell[1])
    with pytest.raises(EvaluationError, match=r"the slab needs .* Å with its vacuum, but it was set up for"):
        frame_of(system._replace(positions=risen), pme)


def test_an_open_system_has_no_box():
    system = random_system(53, pbc=OPEN)
    with pytest.raises(EvaluationError, match="the system is not periodic, but a lattice sum was asked for"):
        set_up(system).box(system.positions, system.cell, system.pbc)


def projection_inputs():
    generator = torch.Generator().manual_seed(3)
    charges = torch.randn(7, 2, generator=generator, dtype=torch.float64)
    weights = torch.rand(7, generator=generator, dtype=torch.float64) + 0.1
    total, frame = torch.tensor([1.0, -2.5], dtype=torch.float64), torch.tensor([0, 0, 0, 0, 1, 1, 1])
    return charges, total, frame, weights


@pytest.mark.parametrize("scripted", [False, True])
def test_projected_charges_have_the_total_charge(scripted):
    project = torch.jit.script(project_charges) if scripted else project_charges
    charges, total, frame, weights = projection_inputs()
    for some in (None, weights, torch.stack([weights, weights.flip(0)], dim=1)):
        found = project(charges, total, frame, some)
        sums = torch.zeros(2, 2, dtype=torch.float64).index_add(0, frame, found)
        torch.testing.assert_close(sums, torch.tensor([[1.0, 0.0], [-2.5, 0.0]], dtype=torch.float64))
    shift = (project(charges, total, frame) - charges)[:4, 0]
    torch.testing.assert_close(shift, shift[:1].expand(4))
    again = project(found, total, frame, weights)
    torch.testing.assert_close(again, found)


def test_jacobian_of_the_projection():
    charges, total, frame, weights = projection_inputs()
    jacobian = torch.autograd.functional.jacobian(
        lambda q: project_charges(q, total, frame, weights), charges
    )
    same = (frame[:, None] == frame).double()
    expected = torch.eye(7, dtype=torch.float64) - same * weights[:, None] / (same @ weights)[:, None]
    for a in range(2):
        for b in range(2):
            torch.testing.assert_close(jacobian[:, a, :, b], expected * (a == b))
    inputs = (charges.requires_grad_(True), total.requires_grad_(True), weights.requires_grad_(True))

    def projected(charges, total, weights):
        return project_charges(charges, total, frame, weights)

    assert torch.autograd.gradcheck(projected, inputs)
    assert torch.autograd.gradgradcheck(projected, inputs)
