"""examples/learning_curve.py."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from training_toy import CUTOFF, boxes

from nearsight.data import write_extxyz
from nearsight.training import plots

SCRIPT = Path(__file__).parents[1] / "examples" / "learning_curve.py"
CONFIG = f"""
data: {{training: data.xyz, validation: 4, test: 4}}
model: {{cutoff: {CUTOFF}, hidden: [8]}}
training: {{epochs: 2, batch_size: 3}}
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("learning_curve_example", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    for name in ("plot_parity", "plot_history"):
        monkeypatch.setattr(plots, name, lambda *_, **__: [])
    write_extxyz(tmp_path / "data.xyz", boxes(20, isolated_atoms=True))
    (tmp_path / "train.yaml").write_text(CONFIG)
    output = tmp_path / "curve"

    def main(*arguments):
        command = ["learning_curve.py", str(tmp_path / "train.yaml"), "--output", str(output), *arguments]
        monkeypatch.setattr(sys, "argv", command)
        script.main()
        assert (output / "learning_curve.png").stat().st_size > 10_000
        return json.loads((output / "learning_curve.json").read_text())

    return main


def test_sizes_seeds_and_files(run, tmp_path, capsys):
    own = run("--sizes", "4", "8", "--seeds", "2", "--steps", "4")
    assert {size: len(values) for size, values in own["forces"]["test"].items()} == {"4": 2, "8": 2}
    said = capsys.readouterr().out
    assert "4 frames, seed 1" in said
    assert "all 3 epochs are done" in said and "all 2 epochs are done" in said  # four steps of three frames
    write_extxyz(tmp_path / "other.xyz", boxes(3, seed=5))
    again = run("--sizes", "4", "8", "--seeds", "1", "--test", f"other one={tmp_path / 'other.xyz'}")
    assert "frames, seed" not in capsys.readouterr().out  # nothing is trained twice
    assert set(again["energy"]) == {"other one"} and set(again["energy"]["other one"]) == {"4", "8"}
