"""examples/carbon_chains/chains.py."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from nearsight import keys
from nearsight.data import Frame, write_extxyz
from nearsight.export import save_model
from nearsight.models import BPNNConfig, LongRangeConfig, build_model

SCRIPT = Path(__file__).parents[1] / "examples" / "carbon_chains" / "chains.py"


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("carbon_chains_example", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def chain(total, split, rng):
    """A straight chain in random order of atoms; charges count from the end with one hydrogen."""
    places = [
        [-1.1, 0.0, 0.0],
        *([1.3 * k, 0.0, 0.0] for k in range(10)),
        [12.2, 0.9, 0.0],
        [12.2, -0.9, 0.0],
    ]
    places = np.array(places)[: 12 + total]
    symbols, charges = np.array(["H", *["C"] * 10, "H", "H"])[: 12 + total], 0.01 * np.arange(12 + total)
    order = rng.permutation(len(places))
    labels = {keys.ENERGY: 0.0, keys.FORCES: np.zeros((len(places), 3)), keys.CHARGES: charges[order]}
    info = {"total_charge": float(total), "split": split}
    return Frame(
        places[order], symbols[order].tolist(), np.zeros((3, 3)), [False] * 3, labels=labels, info=info
    )


def test_charges_along_the_chain(script):
    frame = chain(1, "test", np.random.default_rng(1))
    (far,) = script.far_ends(frame)
    expected = [*(0.01 * np.arange(11)), 0.115]
    np.testing.assert_allclose(script.along(frame, frame.labels[keys.CHARGES], far), expected, atol=1e-12)
    assert len(script.far_ends(chain(0, "test", np.random.default_rng(1)))) == 2


def test_the_comparison(script, tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(2)
    parts = [(0, "train"), (1, "test"), (0, "test"), (1, "train")]
    write_extxyz(tmp_path / "data.xyz", [chain(*part, rng) for part in parts])
    torch.manual_seed(1)
    long_range = LongRangeConfig(charges="environment")
    model = build_model(BPNNConfig(cutoff=3.0, hidden=[4]), ["C", "H"], long_range)
    source = {"reference_energies": {"C": 0.0, "H": 0.0}, "reference_energies_source": "given"}
    save_model(tmp_path / "model.pt", model, **source, provenance={})
    arguments = [tmp_path / "data.xyz", f"local={tmp_path / 'model.pt'}", "--indices", tmp_path / "test.txt"]
    monkeypatch.setattr(sys, "argv", ["chains.py", *map(str, arguments), "--output", str(tmp_path / "x.png")])
    script.main()
    assert (tmp_path / "test.txt").read_text() == "1\n2\n"
    assert (tmp_path / "x.png").stat().st_size > 10_000
    printed = capsys.readouterr().out
    for text in ("reference", "local, before", "0.0550", "-0.0550", "100%"):
        assert text in printed
