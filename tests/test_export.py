"""The model file: what is written, what is refused, and that every backend gives the module's numbers."""

import io
import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import rich.console
import safetensors.torch
import torch

from nearsight.errors import ModelFileError
from nearsight.export import checks, load, model_file, read_entry, read_metadata, save_model
from nearsight.export.describe import describe
from nearsight.lib import _core
from nearsight.models import ACSFConfig, BPNNConfig, build_model

ENERGIES = {"H": -13.6, "O": -2041.2}


def save(path, model, **changes):
    arguments = {
        "reference_energies": ENERGIES,
        "reference_energies_source": "given",
        "provenance": {"frames": 12, "data": {"water.xyz": "ab12"}},
    }
    save_model(path, model, **(arguments | changes))


def bpnn(**config):
    torch.manual_seed(11)
    return build_model(BPNNConfig(**config), ["H", "O"])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "model.pt"
    save(path, bpnn(hidden=[6], cutoff=4.0))
    return path


def with_metadata(source, path, edit):
    """Copy a model file with its metadata changed by `edit`."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            if entry.filename.endswith("extra/nearsight.json"):
                content = json.dumps(edit(json.loads(content))).encode()
            new.writestr(entry, content)
    return path


class Pairs(torch.nn.Module):
    """A module of somebody's own that keeps the contract, with whole-number buffers."""

    def __init__(self):
        super().__init__()
        self.architecture = "pairs"
        self.species = ["H", "O"]
        self.cutoff = 3.0
        self.num_interactions = 1
        self.readouts = [{"name": "energy", "columns": 1}]
        self.couple = {"kind": "sum"}
        self.hyperparameters = {"depth": 0.3}
        self.depth = torch.nn.Parameter(torch.tensor([[0.3, 0.1], [0.1, 0.2]], dtype=torch.float64))
        self.register_buffer("order", torch.tensor([1, 0]))

    def forward(
        self, species: torch.Tensor, edge_index: torch.Tensor, edge_vectors: torch.Tensor, num_owned: int
    ) -> dict[str, torch.Tensor]:
        kinds = self.order[species]
        depth = self.depth[kinds[edge_index[0]], kinds[edge_index[1]]]
        r = torch.sqrt((edge_vectors**2).sum(1))
        zeros = torch.zeros(num_owned, dtype=r.dtype)
        return {"energy": zeros.index_add(0, edge_index[0], depth * (1 - r / 3.0) ** 4)}


@pytest.mark.parametrize(
    "config",
    [
        {"descriptor": ACSFConfig(size="small")},
        {
            "descriptor": ACSFConfig(size="large", cutoff_function="cos"),
            "activation": "silu",
            "hidden": [5, 4],
        },
        {"descriptor": ACSFConfig(size="medium", cutoff_function="tanh3"), "cutoff": 4.0},
        {"descriptor": ACSFConfig(size="small", cutoff_function="poly1"), "states": 2, "state": 1},
        {"descriptor": ACSFConfig(size="small", cutoff_function="poly3"), "states": 4},
    ],
)
def test_both_backends_of_the_core_pass_the_checks(tmp_path, config):
    path = tmp_path / "model.pt"
    save(path, bpnn(**config))
    for backend in ("native", "torchscript"):
        evaluator = _core.Evaluator(str(path), backend=backend)
        for structure in json.loads(read_entry(path, "checks.json")):
            arrays = [np.array(structure[key]) for key in ("positions", "species", "cell", "pbc")]
            assert checks.disagreement(structure, evaluator.evaluate(*arrays)) is None


def test_check_structures_are_what_the_format_says(saved):
    structures = json.loads(read_entry(saved, "checks.json"))
    triclinic, lone, molecule = structures
    assert [s["pbc"] for s in structures] == [[True] * 3, [False] * 3, [False] * 3]
    assert np.abs(np.tril(triclinic["cell"], -1)).min(initial=1, where=np.tri(3, k=-1) > 0) > 0.1
    distances = np.linalg.norm(np.array(lone["positions"])[:-1] - lone["positions"][-1], axis=1)
    assert distances.min() > 4.0
    for structure in structures:
        n = len(structure["positions"])
        assert set(structure["species"]) == {0, 1}
        assert np.shape(structure["forces"]) == (n, 3)
        assert len(structure["readouts"]["energy"]) == n
        reference = sum(ENERGIES["HO"[kind]] for kind in structure["species"])
        assert structure["reference_energy"] == pytest.approx(reference, rel=1e-14)
        total = reference + sum(structure["readouts"]["energy"])
        assert structure["energy"] == pytest.approx(total, rel=1e-14)
    assert len(molecule["positions"]) > 4


def test_metadata_weights_and_module_come_back(saved):
    model = bpnn(hidden=[6], cutoff=4.0)
    metadata = read_metadata(saved)
    assert metadata["format_version"] == 2
    assert metadata["species"] == ["H", "O"]
    assert metadata["reference_energies"] == ENERGIES
    assert metadata["reference_energies_source"] == "given"
    assert metadata["hyperparameters"] == model.hyperparameters
    assert metadata["native"] is True
    assert metadata["units"] == {"length": "angstrom", "energy": "eV"}
    assert metadata["provenance"]["frames"] == 12
    assert metadata["versions"]["torch"] == torch.__version__
    weights = safetensors.torch.load(read_entry(saved, "weights.safetensors"))
    assert weights.keys() == model.weights().keys()
    for name, tensor in model.weights().items():
        assert torch.equal(weights[name], tensor)
    loaded = load(saved)
    assert loaded.metadata == metadata
    for name, tensor in loaded.module.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name])


def test_nearsight_entries_are_stored_uncompressed(saved):
    with zipfile.ZipFile(saved) as archive:
        extra = {e.filename: e.compress_type for e in archive.infolist() if "/extra/" in e.filename}
    assert extra == dict.fromkeys(
        (
            f"archive/extra/{n}"
            for n in ("nearsight.json", "weights.safetensors", "labels.json", "checks.json")
        ),
        zipfile.ZIP_STORED,
    )


def test_reading_metadata_needs_no_torch(saved):
    code = (
        "import sys; from nearsight.export import read_metadata; "
        f"print(read_metadata({str(saved)!r})['architecture'], 'torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["bpnn", "False"]


def test_a_trained_model_in_single_precision_is_written_in_double(tmp_path):
    model = bpnn().to(torch.float32)
    save(tmp_path / "model.pt", model)
    assert {p.dtype for p in load(tmp_path / "model.pt").module.parameters()} == {torch.float64}
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_a_module_of_ones_own_is_written_without_native_weights(tmp_path):
    save(tmp_path / "pairs.pt", Pairs())
    assert read_metadata(tmp_path / "pairs.pt")["native"] is False
    with pytest.raises(ModelFileError, match=r"has no entry weights\.safetensors"):
        read_entry(tmp_path / "pairs.pt", "weights.safetensors")
    evaluator = _core.Evaluator(str(tmp_path / "pairs.pt"), backend="auto")
    assert evaluator.backend == "torchscript"
    structure = json.loads(read_entry(tmp_path / "pairs.pt", "checks.json"))[0]
    arrays = [np.array(structure[key]) for key in ("positions", "species", "cell", "pbc")]
    assert checks.disagreement(structure, evaluator.evaluate(*arrays)) is None


def test_a_file_whose_backends_disagree_is_not_written(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(b"the model of yesterday")
    model = bpnn()
    weights = model.weights()
    model.weights = lambda: weights | {"H.0.bias": weights["H.0.bias"] + 1e-6}
    message = (
        "the native backend does not give the module's results: energy of the check structure 'triclinic'"
    )
    with pytest.raises(ModelFileError, match=message):
        save(path, model)
    assert path.read_bytes() == b"the model of yesterday"
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


def test_nan_disagrees():
    structure = {
        "name": "x",
        "energy": 1.0,
        "reference_energy": 0.0,
        "forces": [[0.0] * 3],
        "virial": np.eye(3),
    }
    assert checks.disagreement(structure, structure) is None
    assert "forces of the check structure 'x' differs by nan" in checks.disagreement(
        structure, structure | {"forces": [[np.nan] * 3]}
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"reference_energies": {"H": 0.0}},
            "no reference energy was given for O; use 0.0 where there is none",
        ),
    ],
)
def test_incomplete_arguments_are_named(tmp_path, changes, message):
    with pytest.raises(ModelFileError, match=message):
        save(tmp_path / "model.pt", bpnn(), **changes)


def test_an_incomplete_module_is_named(tmp_path):
    model = Pairs()
    del model.couple
    with pytest.raises(ModelFileError, match="the module lacks the attributes couple"):
        save(tmp_path / "model.pt", model)
    model.couple = {"kind": "eigenstate", "states": 2, "state": 0}
    with pytest.raises(ModelFileError, match=r"'eigenstate' needs the readouts \['hamiltonian'\]"):
        save(tmp_path / "model.pt", model)


def test_an_older_file_is_upgraded_step_by_step(saved, tmp_path, monkeypatch):
    def downgrade(metadata):  # a made-up version 1 that had no couple and called the cutoff radius
        metadata["radius"] = metadata.pop("cutoff")
        del metadata["couple"]
        return metadata | {"format_version": 1}

    def upgrade(metadata):
        metadata["cutoff"] = metadata.pop("radius")
        return metadata | {"couple": {"kind": "sum"}}

    path = with_metadata(saved, tmp_path / "old.pt", downgrade)
    with pytest.raises(ModelFileError, match="format version 1 is older than any that this nearsight reads"):
        read_metadata(path)
    monkeypatch.setitem(model_file.UPGRADES, 1, upgrade)
    assert read_metadata(path) == read_metadata(saved)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda m: m | {"format_version": 3},
            "format version 3 is newer than version 2, the newest that this",
        ),
        (lambda m: m | {"format_version": "1"}, "format_version should be a whole number, found '1'"),
        (lambda m: m | {"format": "farsight"}, 'does not say "format": "nearsight"'),
        (lambda m: [m], 'does not say "format": "nearsight"'),
        (
            lambda m: {k: m[k] for k in m if k not in ("cutoff", "units")},
            "lacks cutoff, units; export the model",
        ),
    ],
)
def test_metadata_that_cannot_be_used_is_refused(saved, tmp_path, edit, message):
    with pytest.raises(ModelFileError, match=message):
        read_metadata(with_metadata(saved, tmp_path / "other.pt", edit))


def test_damaged_and_foreign_files_are_refused(saved, tmp_path):
    content = saved.read_bytes()
    path = tmp_path / "bad.pt"

    def refused(written, message):
        path.write_bytes(written)
        for read in (read_metadata, load):
            with pytest.raises(ModelFileError, match=message):
                read(path)

    refused(content[:-5000], "the model file is truncated or damaged")
    refused(
        content.replace(b'"format_version"', b'"format_versiom"'), "the model file is truncated or damaged"
    )
    refused(b"", "not a nearsight model: expected a zip archive")
    refused(b"LAMMPS data file", "not a nearsight model: expected a zip archive")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("thesis.txt", "once upon a time")
    refused(path.read_bytes(), "not a nearsight model but another zip archive")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/extra/nearsight.json", "{")
    refused(path.read_bytes(), r"its nearsight\.json is damaged")
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), path)
    refused(path.read_bytes(), r"a TorchScript file, but not a nearsight model: it has no nearsight\.json")
    with pytest.raises(ModelFileError, match="there is no such model file"):
        read_metadata(tmp_path / "nowhere.pt")
    with pytest.raises(ModelFileError, match=r"the model file cannot be read \(Is a directory\)"):
        read_metadata(tmp_path)


def test_random_damage_is_found_or_harmless(saved, tmp_path):
    content, expected = saved.read_bytes(), read_metadata(saved)
    rng = np.random.default_rng(0)
    path = tmp_path / "damaged.pt"
    refusals = 0
    for _ in range(200):
        damaged = bytearray(content)
        for place in rng.integers(len(content) - 2000, len(content), 3):  # the directory stands at the end
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            assert read_metadata(path) == expected
        except ModelFileError:
            refusals += 1
    assert refusals > 100


def test_an_archive_that_torch_cannot_load_is_named(saved, tmp_path):
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(tmp_path / "bare.pt", "w") as new:
        for entry in old.infolist():
            if "/extra/" in entry.filename:
                new.writestr(entry, old.read(entry))
    with pytest.raises(ModelFileError, match=r"torch .* cannot load the module"):
        load(tmp_path / "bare.pt")


def test_the_description_tells_what_a_user_asks_for(saved):
    console = rich.console.Console(width=200, record=True, file=io.StringIO())
    console.print(describe(read_metadata(saved)))
    text = console.export_text()
    for words in (
        "bpnn",
        "native, torchscript",
        "H O",
        "4 Å × 1",
        "kind sum",
        "O -2041.200000 eV (given)",
        "frames",
    ):
        assert words in text
    assert "H: 46 (22 radial, 24 angular_narrow)" in text
