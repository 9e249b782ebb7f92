"""Importing models of mace-torch: tiny ones against its numbers, without it (tests_side/mace has it)."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from nearsight.cli.app import app
from nearsight.errors import ConfigError
from nearsight.export import read_metadata
from nearsight.importers import mace_extract
from nearsight.importers.mace_torch import from_numbers, import_mace
from nearsight.interfaces.potential import Potential

# Of mace-torch 0.3.16 with e3nn 0.4.4 and torch 2.13.0, written by tests_side/mace/golden.py.
GOLDEN = {"omat": ("second", "HCO"), "odd": (None, "HO")}


def golden(name):
    """The record and arrays of a golden model, and mace-torch's results for a cell."""
    with np.load(Path(__file__).parent / "mace_golden" / f"{name}.npz") as file:
        arrays = dict(file)
    record = json.loads(arrays.pop("record").tobytes())
    results = {key.removeprefix("golden."): arrays.pop(key) for key in list(arrays) if "golden." in key}
    return record, arrays, SimpleNamespace(**results)


@pytest.fixture(scope="module", params=GOLDEN)
def case(request, tmp_path_factory):
    """An imported golden model as a file, and mace-torch's results."""
    record, arrays, expected = golden(request.param)
    head, elements = GOLDEN[request.param]
    imported = from_numbers(record, arrays, head=head)
    assert imported.model.species == list(elements)
    path = tmp_path_factory.mktemp("mace") / "model.pt"
    imported.save(path)
    return imported, path, expected


def test_results_are_those_of_mace_torch(case):
    imported, path, expected = case
    found = Potential(path).compute(
        expected.positions, [chemical(number) for number in expected.numbers], expected.cell, [True] * 3
    )
    assert found.energy == pytest.approx(float(expected.energy), abs=1e-9)
    assert found.forces == pytest.approx(expected.forces, abs=1e-9)
    stress = -np.asarray(found.virial) / np.linalg.det(expected.cell)
    voigt = stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    assert voigt == pytest.approx(expected.stress, abs=1e-9)
    assert "largest deviation from mace-torch for a molecule of 12 atoms" in imported.notes[-1]


def chemical(number):
    from ase.data import chemical_symbols

    return chemical_symbols[number]


def test_metadata_names_the_source(case):
    imported, path, _ = case
    metadata = read_metadata(path)
    assert metadata["architecture"] == "mace"
    assert metadata["provenance"]["imported_from"] == "mace-torch"
    assert metadata["provenance"]["versions"] == {"mace-torch": "0.3.16", "e3nn": "0.4.4"}
    assert metadata["reference_energies"] == pytest.approx(imported.reference_energies)


def test_some_of_the_species(tmp_path, case):
    imported, path, _ = case
    name = "omat" if len(imported.model.species) == 3 else "odd"
    record, arrays, _ = golden(name)
    some = from_numbers(record, arrays, species=["O", "H"], head=GOLDEN[name][0])
    assert some.model.species == ["H", "O"]
    assert some.model.weights()["embedding"].shape[0] == 2
    some.save(tmp_path / "some.pt")
    positions = np.array([[0.0, 0.0, 0.0], [0.9, 0.3, 0.0], [-0.4, 1.1, 0.2], [2.1, 0.3, 1.0]])
    results = [
        Potential(file).compute(positions, ["O", "H", "H", "O"]) for file in (path, tmp_path / "some.pt")
    ]
    assert results[0].energy == pytest.approx(results[1].energy, abs=1e-12)
    assert results[0].forces == pytest.approx(results[1].forces, abs=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"species": ["Xe", "H"]}, "the model has no Xe; its species are H, C, O"),
        ({}, r"has the heads first, second: choose one \(--head\)"),
        ({"head": "third"}, "no head 'third', its heads are first, second"),
    ],
)
def test_what_the_model_has_not(options, message):
    record, arrays, _ = golden("omat")
    with pytest.raises(ConfigError, match=message):
        from_numbers(record, arrays, **options)


def test_numbers_that_do_not_belong_together():
    record, arrays, _ = golden("odd")
    wrong = arrays | {"layers.1.update.0e": 1.01 * arrays["layers.1.update.0e"]}
    with pytest.raises(ConfigError, match=r"does not give the numbers of mace-torch \(energy .* 0\.3\.16"):
        from_numbers(record, wrong)
    terms = arrays["layers.0.product.terms.0e"].copy()
    terms[-1, -1] *= 1.01
    with pytest.raises(ConfigError, match="polynomials to 0e have a part of"):
        from_numbers(record, arrays | {"layers.0.product.terms.0e": terms})
    turned = arrays | {"w3j.0.1.1": np.roll(arrays["w3j.0.1.1"], 1, axis=1)}
    with pytest.raises(ConfigError, match="coupling of 0, 1 and 1 in e3nn is not ours"):
        from_numbers(record, turned)


def test_chebyshev_forces_are_not_compared():
    record, arrays, _ = golden("omat")
    forces = [{"energy": r["energy"], "forces": np.zeros((12, 3))} for r in record["check"]["results"]]
    check = record["check"] | {"results": forces}
    wrong = record | {"check": check, "radial": record["radial"] | {"basis": "chebyshev"}}
    with pytest.raises(ConfigError, match=r"\(energy [0-9.e+-]+ eV\)"):  # another basis: another energy
        from_numbers(wrong, arrays, head="first")


# ---- the command


def program(folder, text):
    """A program in place of Python."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "some.model"
    path.write_bytes(b"a pickle")
    return path


def test_trust_is_asked_for(model):
    arguments = ["import", "mace", str(model), "-o", "model.pt"]
    with pytest.raises(ConfigError, match=r"is a pickle, and reading one runs any code .* --trust"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_without_mace_torch(tmp_path, model):
    python = program(tmp_path, f'exec {sys.executable} -I -S "$@"')
    arguments = ["import", "mace", str(model), "-o", "model.pt", "--trust", "--python", str(python)]
    with pytest.raises(ConfigError, match=r"has no package 'e3nn'.*`pip install mace-torch` there.*--python"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_the_reason_is_handed_on(tmp_path, model):
    python = program(tmp_path, """printf '{"error": "the model is a BOTNet"}' > "$3/record.json" """)
    with pytest.raises(ConfigError, match=r"some\.model cannot be imported: the model is a BOTNet"):
        import_mace(model, python=python)


def test_a_process_that_dies(tmp_path, model):
    python = program(tmp_path, "echo out of memory >&2; exit 9")
    with pytest.raises(ConfigError, match="ended with code 9: out of memory"):
        import_mace(model, python=python)


def test_files_that_are_not_there(tmp_path, model):
    with pytest.raises(ConfigError, match="nowhere does not exist"):
        import_mace(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"cannot be run: No such file or directory; name a Python"):
        import_mace(model, python=tmp_path / "nowhere")


def test_import_writes_a_file(tmp_path, model):
    record, arrays, _ = golden("omat")
    (tmp_path / "ready").mkdir()
    (tmp_path / "ready/record.json").write_text(json.dumps(record))
    np.savez(tmp_path / "ready/arrays.npz", **arrays)
    python = program(tmp_path, f'cp {tmp_path}/ready/* "$3"')
    output = tmp_path / "model.pt"
    options = ["--species", "O, H", "--head", "first", "--trust", "--python", str(python)]
    done = CliRunner().invoke(
        app, ["import", "mace", str(model), "-o", str(output), *options], catch_exceptions=False
    )
    assert "Note: largest deviation from mace-torch" in done.output
    assert f"{output} written." in done.output.replace("\n", "")
    assert read_metadata(output)["species"] == ["H", "O"]


# ---- what the program that has mace-torch refuses, and its formulas


class Linear(torch.nn.Module):
    """As e3nn's: two blocks of 0e to one, and one of 1o."""

    def __init__(self, places=((0, 0), (1, 1), (2, 0))):
        super().__init__()
        irreps = {"in": ((2, "0e"), (3, "1o"), (1, "0e")), "out": ((2, "0e"), (3, "1o"))}
        self.irreps_in, self.irreps_out = (
            [SimpleNamespace(mul=mul, ir=ir) for mul, ir in irreps[end]] for end in ("in", "out")
        )
        shapes = [(irreps["in"][i][0], irreps["out"][o][0]) for i, o in places]
        self.instructions = [
            SimpleNamespace(i_in=i, i_out=o, path_shape=shape, path_weight=0.5)
            for (i, o), shape in zip(places, shapes)
        ]
        self.weight = torch.arange(sum(a * b for a, b in shapes), dtype=torch.float32)


def test_blocks_of_linear_maps():
    maps = mace_extract.linear("map", Linear())
    assert maps["0e"].tolist() == [[0.0, 0.5], [1.0, 1.5], [6.5, 7.0]]
    assert maps["1o"].shape == (3, 3)
    biased = Linear()
    biased.instructions[0].i_in = -1
    with pytest.raises(mace_extract.Unknown, match="the map has a bias"):
        mace_extract.linear("map", biased)


def test_gains_of_activations():
    gain = mace_extract.silu_gain("readout", lambda x: 1.7 * torch.nn.functional.silu(x))
    assert gain == pytest.approx(1.7, rel=1e-12)
    with pytest.raises(mace_extract.Unknown, match="activation of the readout is not silu"):
        mace_extract.silu_gain("readout", torch.tanh)


def test_unknown_parts_are_named():
    with pytest.raises(
        mace_extract.Unknown, match="the model is a Linear, which is not known; expected MACE or"
    ):
        mace_extract.read(Linear())
    parts = [SimpleNamespace(mul=4, ir="0e"), SimpleNamespace(mul=2, ir="1o")]
    with pytest.raises(mace_extract.Unknown, match="with the same number of channels"):
        mace_extract.uniform("messages", parts)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3}, "has a dict, expected a model; is it a checkpoint of the training"),
        (Linear(), "the model is a Linear"),
    ],
)
def test_other_files(tmp_path, content, message):
    torch.save(content, tmp_path / "other.model")
    with pytest.raises(mace_extract.Unknown, match=message):
        mace_extract.unpickle(tmp_path / "other.model")


@pytest.mark.filterwarnings("ignore:'torch.load' received")
def test_compiled_models(tmp_path):
    compiled = torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2))
    compiled.save(tmp_path / "compiled.pt")
    with pytest.raises(mace_extract.Unknown, match="a compiled model"):
        mace_extract.unpickle(tmp_path / "compiled.pt")
