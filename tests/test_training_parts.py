"""The parts of training against closed forms: loss, metrics, schedule, batches, checkpoints, plots."""

import resource
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from numpy.testing import assert_allclose
from training_toy import CUTOFF, boxes, label

from nearsight import keys
from nearsight.couple import Results, evaluate
from nearsight.data import Frame, ReferenceEnergies, fit_energies
from nearsight.errors import ConfigError, DataError, NearsightError
from nearsight.models import BPNNConfig, build_model, training_module
from nearsight.training import plots
from nearsight.training.batches import batch_order, join, make_batch, species_numbers
from nearsight.training.checkpoint import check_unchanged, read_checkpoint, write_checkpoint
from nearsight.training.config import (
    Config,
    ConstantSchedule,
    CosineSchedule,
    KeysConfig,
    LinearSchedule,
    LossConfig,
    PlateauSchedule,
    SecondStageConfig,
)
from nearsight.training.loss import Loss, check_targets, make_loss
from nearsight.training.metrics import Metrics
from nearsight.training.schedule import LearningRate

SPECIES = ["Ne", "Ar"]
REFERENCE = ReferenceEnergies({"Ne": -2.0, "Ar": -5.0}, "given")


def displaced(frame, positions=None, strain=None):
    deformation = np.eye(3) if strain is None else np.eye(3) + strain
    positions = frame.positions if positions is None else positions
    return Frame(positions @ deformation, frame.symbols, frame.cell @ deformation, frame.pbc)


def test_toy_labels_are_derivatives():
    frame, h = boxes(1)[0], 1e-5
    for i, axis in ((0, 0), (5, 2)):
        step = np.zeros((8, 3))
        step[i, axis] = h
        up, down = (label(displaced(frame, frame.positions + s * step))[keys.ENERGY] for s in (1, -1))
        assert_allclose(frame.labels[keys.FORCES][i, axis], -(up - down) / (2 * h), atol=1e-8)
    for a, b in ((0, 0), (1, 2)):
        strain = np.zeros((3, 3))
        strain[a, b] += h / 2
        strain[b, a] += h / 2
        up, down = (label(displaced(frame, strain=s * strain))[keys.ENERGY] for s in (1, -1))
        assert_allclose(frame.labels[keys.VIRIAL][a, b], -(up - down) / (2 * h), atol=1e-8)


def random_results(batch, seed=0):
    rng = torch.Generator().manual_seed(seed)
    frames = len(batch.num_atoms)
    shapes = {"energy": (frames,), "forces": (batch.graph.num_atoms, 3), "virial": (frames, 3, 3)}
    return Results(**{n: torch.randn(s, generator=rng).double() for n, s in shapes.items()}, readouts={})


def batch_of(frames):
    return join([make_batch(frame, SPECIES, CUTOFF, REFERENCE) for frame in frames])


def test_loss_is_the_documented_formula():
    frames = [*boxes(2), *boxes(1, isolated_atoms=True)[1:2]]
    batch = batch_of(frames)
    results = random_results(batch)
    loss = Loss({"energy": 2.0, "forces": 3.0, "virial": 0.5}, {"energy": 0.7, "forces": 0.2, "virial": 1.3})
    expected, start = [], 0
    for k, frame in enumerate(frames):
        n = len(frame)
        energy = frame.labels["energy"] - REFERENCE.total(frame.symbols)
        forces = results.forces[start : start + n].numpy()
        start += n
        expected.append(
            2.0 * ((float(results.energy[k]) - energy) / 0.7) ** 2
            + 3.0 / (3 * n) * ((forces - frame.labels["forces"]) ** 2).sum() / 0.2**2
            + 0.5 / 9 * ((results.virial[k].numpy() - frame.labels["virial"]) ** 2).sum() / 1.3**2
        )
    assert_allclose(loss(results, batch).numpy(), expected, rtol=1e-12)


def test_the_terms_of_charges():
    """Charges, dipole and Born charges; the third frame has none of the last."""
    frames, rng = boxes(3), np.random.default_rng(3)
    for frame in frames:
        n = len(frame)
        shapes = {keys.CHARGES: n, keys.DIPOLE: 3, keys.BORN_CHARGES: (n, 3, 3)}
        frame.labels |= {name: rng.normal(size=shape) for name, shape in shapes.items()}
    del frames[2].labels[keys.BORN_CHARGES]
    batch = batch_of(frames)
    n, generator = batch.graph.num_atoms, torch.Generator().manual_seed(1)
    found = {
        name: torch.randn(shape, generator=generator).double()
        for name, shape in (("charges", (n, 1)), ("dipole", (3, 3)), ("born_charges", (n, 3, 3)))
    }
    weights = {keys.CHARGES: 2.0, keys.DIPOLE: 3.0, keys.BORN_CHARGES: 0.5}
    loss = Loss(weights, {keys.CHARGES: 0.7, keys.DIPOLE: 0.2, keys.BORN_CHARGES: 1.3})
    results = replace(random_results(batch), **found)
    expected, start = [], 0
    for k, frame in enumerate(frames):
        atoms, labels = slice(start, start + len(frame)), frame.labels
        start = atoms.stop
        q, z = found["charges"][atoms, 0].numpy(), found["born_charges"][atoms].numpy()
        expected.append(
            2.0 * ((q - labels[keys.CHARGES]) ** 2).mean() / 0.7**2
            + 3.0 * ((found["dipole"][k].numpy() - labels[keys.DIPOLE]) ** 2).mean() / 0.2**2
        )
        if keys.BORN_CHARGES in labels:
            expected[-1] += 0.5 * ((z - labels[keys.BORN_CHARGES]) ** 2).mean() / 1.3**2
    assert_allclose(loss(results, batch).numpy(), expected, rtol=1e-12)
    assert torch.isfinite(loss(replace(results, born_charges=None), batch)).all()
    config = LossConfig(**weights, energy=0.0, forces=0.0)
    sigmas = make_loss(config, frames, REFERENCE).sigmas
    assert_allclose(
        sigmas[keys.DIPOLE], np.sqrt(np.mean([frame.labels[keys.DIPOLE] ** 2 for frame in frames]))
    )


def test_a_dipole_of_a_periodic_frame_is_refused():
    frame = boxes(1)[0]
    frame.labels[keys.DIPOLE] = np.ones(3)
    message = (
        r"frame is periodic and has a dipole, which depends on the images of its atoms; .* training\.loss"
    )
    with pytest.raises(DataError, match=message):
        check_targets(LossConfig(dipole=1.0), KeysConfig(), {"training": [frame]})


def test_determination():
    """1 - Σ(p - r)² / Σ(r - ⟨r⟩)² of all components; of energies it is not given."""
    rng, metrics, parts = np.random.default_rng(2), Metrics(), (Metrics(), Metrics())
    references, errors = rng.normal(1.0, 2.0, (4, 3)), rng.normal(0.0, 0.1, (4, 3))
    for k in range(4):
        frame = Frame(np.zeros((1, 3)), ["Ne"], np.zeros((3, 3)), [False] * 3, {keys.DIPOLE: references[k]})
        frame.labels[keys.ENERGY] = 1.0
        parts[k % 2].add(frame, {keys.DIPOLE: references[k] + errors[k], keys.ENERGY: 2.0})
    for part in parts:
        metrics.merge(part)
    expected = 1 - (errors**2).sum() / ((references - references.mean()) ** 2).sum()
    found = metrics.as_dict()
    assert_allclose(found[keys.DIPOLE]["r2"], expected, rtol=1e-12)
    assert_allclose(found[keys.DIPOLE]["rmse"], 1000 * np.sqrt((errors**2).mean()), rtol=1e-12)
    assert found[keys.DIPOLE]["unit"] == "me·Å" and "r2" not in found[keys.ENERGY]


def test_absent_targets_add_nothing():
    frames = boxes(2)
    del frames[0].labels["forces"], frames[1].labels["energy"]
    batch = batch_of(frames)
    results = random_results(batch)
    only_energy = Loss({"energy": 1.0}, {"energy": 1.0})(results, batch)
    only_forces = Loss({"forces": 1.0}, {"forces": 1.0})(results, batch)
    assert only_energy[0] > 0 and only_energy[1] == 0
    assert only_forces[0] == 0 and only_forces[1] > 0


def test_frames_have_weights():
    frame = boxes(1)[0]
    batches = [make_batch(frame, SPECIES, CUTOFF, REFERENCE, *weight) for weight in ((), (0.25,), (0.0,))]
    loss = Loss(
        {"energy": 1.0, "forces": 1.0, "virial": 1.0}, dict.fromkeys(("energy", "forces", "virial"), 1.0)
    )
    plain, quarter, nothing = (float(loss(random_results(batch), batch)) for batch in batches)
    assert plain > 0 and nothing == 0
    assert_allclose(quarter, plain / 4, rtol=1e-14)


def test_sigmas_are_given_or_estimated():
    frames = boxes(5)
    loss = make_loss(LossConfig(virial=0.1, sigma_forces=0.3), frames, REFERENCE)
    energies = [frame.labels["energy"] - REFERENCE.total(frame.symbols) for frame in frames]
    virials = np.stack([frame.labels["virial"] for frame in frames])
    assert loss.weights == {"energy": 1.0, "forces": 1.0, "virial": 0.1}
    assert loss.sigmas["forces"] == 0.3
    assert_allclose(loss.sigmas["energy"], np.std(energies))
    assert_allclose(loss.sigmas["virial"], np.sqrt(((virials - virials.mean(0)) ** 2).mean()))
    assert_allclose(
        make_loss(LossConfig(), frames, REFERENCE).sigmas["forces"],
        np.sqrt(np.mean([frame.labels["forces"] ** 2 for frame in frames])),
    )


@pytest.mark.parametrize("backend", ["torch", "native"])
def test_gradient_of_the_loss_is_its_finite_difference(backend):
    """Through energy, forces and virial at once; random weights, double precision."""
    torch.manual_seed(0)
    model = build_model(BPNNConfig(cutoff=CUTOFF, hidden=[5, 5]), SPECIES)
    module = training_module(model, backend)
    batch = batch_of(boxes(2))
    model.fit_statistics([batch.graph], 0.5)
    loss = Loss({"energy": 1.0, "forces": 1.0, "virial": 0.3}, {"energy": 0.5, "forces": 0.3, "virial": 1.0})

    def value(create_graph=False):
        return loss(evaluate(module, batch.graph, model.couple, create_graph=create_graph), batch).mean()

    value(create_graph=True).backward()
    parameters = list(model.parameters())
    direction = [torch.randn_like(parameter) for parameter in parameters]
    slope = sum(float((p.grad * d).sum()) for p, d in zip(parameters, direction))
    values = []
    for sign in (1, -2):
        with torch.no_grad():
            for parameter, d in zip(parameters, direction):
                parameter += sign * 1e-6 * d
        values.append(float(value()))
    assert_allclose(slope, (values[0] - values[1]) / 2e-6, rtol=1e-7)


def test_targets_that_are_weighted_must_be_there():
    frames = boxes(2)
    for frame in frames:
        del frame.labels["forces"]
        frame.info["REF_force"] = 1.0
    sets = {"training": frames, "validation": [], "test": []}
    message = (
        r"training.loss.forces is 1, but no frame of the training set has forces \(key 'REF_forces'\); "
        r"the files have 'REF_force': set data.keys.forces, or training.loss.forces: 0"
    )
    with pytest.raises(DataError, match=message):
        check_targets(LossConfig(), KeysConfig(), sets)
    with pytest.raises(DataError, match=r"set data.keys.forces \(the files have REF_force\)"):
        check_targets(LossConfig(), KeysConfig(forces="dft"), sets)
    check_targets(LossConfig(forces=0.0), KeysConfig(), sets)
    later = SecondStageConfig(forces=2.0)
    with pytest.raises(DataError, match=r"training.loss.second_stage.forces is 2, .* or .*stage.forces: 0"):
        check_targets(LossConfig(forces=0.0, second_stage=later), KeysConfig(), sets)
    nothing = SecondStageConfig(energy=0.0)
    with pytest.raises(DataError, match=r"training.loss.second_stage weights nothing"):
        check_targets(LossConfig(forces=0.0, second_stage=nothing), KeysConfig(), sets)
    with pytest.raises(DataError, match="weights nothing"):
        check_targets(LossConfig(forces=0.0, energy=0.0), KeysConfig(), sets)


def test_unknown_species_are_named():
    with pytest.raises(DataError, match="frame holds Ar, but the model knows only Ne, Kr"):
        species_numbers(boxes(1)[0], ["Ne", "Kr"])


def test_fitted_energies_over_a_reference():
    frames = boxes(4)
    for frame in frames:
        frame.labels["energy"] = REFERENCE.total(frame.symbols) + 0.5 * frame.symbols.count("Ar")
    assert_allclose(list(fit_energies(frames, SPECIES, REFERENCE).values()), [0.0, 0.5], atol=1e-12)


def test_untrained_networks_start_at_mean_energies():
    model = build_model(BPNNConfig(cutoff=CUTOFF, hidden=[5]), SPECIES)
    batch = batch_of(boxes(1))
    model.fit_statistics([batch.graph], 1e-9)
    model.set_mean_energies({"Ne": -1.0, "Ar": 2.0})
    energies = evaluate(model, batch.graph, model.couple).readouts["energy"]
    assert_allclose(energies.numpy(), np.where(batch.graph.species.numpy() == 0, -1.0, 2.0), atol=1e-6)


def test_metrics_per_atom_and_per_species():
    frames = boxes(3)
    rng = np.random.default_rng(1)
    errors = [{name: rng.normal(size=np.shape(value)) for name, value in f.labels.items()} for f in frames]
    metrics = Metrics()
    for frame, error in zip(frames, errors):
        metrics.add(frame, {name: frame.labels[name] + error[name] for name in error})
    energy = np.array([1000 * error["energy"] / 8 for error in errors])
    forces = 1000 * np.concatenate([error["forces"] for error in errors])
    argon = np.array([symbol == "Ar" for frame in frames for symbol in frame.symbols])
    found = metrics.as_dict()
    assert_allclose(found["energy"]["rmse"], np.sqrt(np.mean(energy**2)))
    assert_allclose(found["forces"]["mae"], np.abs(forces).mean())
    assert_allclose(found["forces"]["max"], np.abs(forces).max())
    assert_allclose(found["forces_by_species"]["Ar"]["rmse"], np.sqrt(np.mean(forces[argon] ** 2)))
    assert found["virial"]["count"] == 27 and found["virial"]["unit"] == "meV/atom"


def test_cosine_schedule():
    rate = LearningRate(CosineSchedule(warmup_steps=3, final_fraction=0.1))
    assert_allclose([rate.factor(step, 0.0) for step in range(5)], [0.25, 0.5, 0.75, 1.0, 1.0])
    assert_allclose([rate.factor(99, f) for f in (0.0, 0.5, 1.0, 1.3)], [1.0, 0.55, 0.1, 0.1])


def test_linear_schedule():
    rate = LearningRate(LinearSchedule(kind="linear", warmup_steps=1, final_fraction=0.2))
    assert_allclose([rate.factor(step, 0.0) for step in range(3)], [0.5, 1.0, 1.0])
    assert_allclose([rate.factor(99, f) for f in (0.25, 0.5, 1.0, 1.3)], [0.8, 0.6, 0.2, 0.2])


def test_constant_schedule():
    rate = LearningRate(ConstantSchedule(kind="constant", warmup_steps=0))
    assert rate.factor(0, 0.9) == 1.0


def test_plateau_schedule_reduces_and_continues_from_its_state():
    config = PlateauSchedule(kind="plateau", factor=0.5, patience=2, warmup_steps=0)
    rate = LearningRate(config)
    for improved in (True, True, False):
        rate.epoch_ended(improved)
    assert rate.factor(9, 0.5) == 1.0
    continued = LearningRate(config)
    continued.load(rate.state())
    for schedule in (rate, continued):
        schedule.epoch_ended(False)
        assert schedule.factor(9, 0.5) == 0.5


def test_order_of_batches_is_a_function_of_seed_and_epoch():
    order = batch_order(10, 4, seed=3, epoch=7)
    assert sorted(number for batch in order for number in batch) == list(range(10))
    assert [len(batch) for batch in order] == [4, 4, 2]
    assert order == batch_order(10, 4, seed=3, epoch=7)
    assert order != batch_order(10, 4, seed=3, epoch=8)


def test_checkpoint_round_trip(tmp_path):
    path = tmp_path / "checkpoints" / "last.ckpt"
    write_checkpoint(path, {"value": torch.arange(3.0)})
    assert read_checkpoint(path)["value"].tolist() == [0.0, 1.0, 2.0]
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_leaves_the_older_checkpoint(tmp_path):
    """The limit on the size of files makes the system refuse the write, as a full disk does."""
    path = tmp_path / "last.ckpt"
    write_checkpoint(path, {"value": 1})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(
            NearsightError, match=r"cannot be written \(File too large\); the one before it is intact"
        ):
            write_checkpoint(path, {"value": torch.zeros(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert read_checkpoint(path)["value"] == 1
    assert list(tmp_path.iterdir()) == [path]


def test_checkpoints_that_cannot_be_used(tmp_path):
    path = tmp_path / "last.ckpt"
    with pytest.raises(NearsightError, match="does not exist"):
        read_checkpoint(path)
    path.write_bytes(b"nothing")
    with pytest.raises(NearsightError, match="is not a checkpoint, or it is damaged"):
        read_checkpoint(path)
    torch.save({"weights": 1}, path)
    with pytest.raises(NearsightError, match="is not a checkpoint of nearsight"):
        read_checkpoint(path)
    write_checkpoint(path, {"format_version": 99})
    with pytest.raises(
        NearsightError, match="has version 99, this nearsight reads version 2; take a newer nearsight"
    ):
        read_checkpoint(path)


def test_only_the_length_of_a_run_may_change():
    def config(**training):
        return Config(data={"training": "a.xyz"}, training=training)

    content = {"config": config().model_dump(mode="json", by_alias=True), "data_files": {"a.xyz": "1"}}
    check_unchanged(content, config(epochs=7, max_minutes=1.0), {"a.xyz": "1"})
    message = r"another configuration: training.batch_size: 2 → 5; content of a.xyz. Only training.epochs and"
    with pytest.raises(ConfigError, match=message):
        check_unchanged(content, config(batch_size=5), {"a.xyz": "2"})


def test_plots_are_drawn_for_every_label(tmp_path):
    frames = boxes(50)  # 1200 force components: colored by density
    del frames[0].labels["virial"]
    predictions = [{name: 1.01 * np.asarray(v) for name, v in label(frame).items()} for frame in frames]
    paths = plots.plot_parity(tmp_path, frames, predictions, REFERENCE, "test set")
    rows = [
        {"epoch": n, "training_loss": 1 / n, "validation_loss": 2 / n, "energy_rmse": 3 / n}
        for n in (1, 2, 3)
    ]
    plots.plot_history(rows, tmp_path / "history.png")
    assert [path.name for path in paths] == ["parity_energy.png", "parity_forces.png", "parity_virial.png"]
    for path in [*paths, tmp_path / "history.png"]:
        pixels = imread(path)
        assert pixels.shape[0] > 500 and pixels[..., :3].std() > 0.01
