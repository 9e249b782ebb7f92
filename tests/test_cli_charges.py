"""Commands for models with charges: `evaluate` and `pme-tune`."""

import json

import numpy as np
import pytest
from core.charge_models import SPECIES, case, random_model
from core.test_charge_models import save

from nearsight import Potential, keys
from nearsight.data import Frame, read_frames, write_extxyz


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return save(tmp_path_factory.mktemp("charges") / "model.pt", random_model("weighted"))


def frames_of(path, cells, sign=1.0):
    """With what the model says of them as labels, charges with another sign."""
    frames = []
    for cell in cells:
        one = case(cell, False, "weighted")
        found = Potential(path).compute_indices(*one, born_charges=True)
        labels = {keys.ENERGY: found.energy, keys.BORN_CHARGES: sign * found.born_charges}
        if found.dipole is not None:
            labels[keys.DIPOLE] = sign * found.dipole
        frames.append(Frame(one.positions, [SPECIES[z] for z in one.species], one.cell, one.pbc, labels))
    return frames


def test_errors_of_dipoles_and_born_charges(path, tmp_path, run):
    write_extxyz(tmp_path / "data.xyz", frames_of(path, ("open", "triclinic")))
    code, out, _ = run("evaluate", path, tmp_path / "data.xyz", "--plots", tmp_path / "out")
    assert code == 0 and "1.0000" in out and "other sign" not in out
    errors = json.loads((tmp_path / "out" / "errors.json").read_text())
    assert errors["dipole"]["count"] == 3 and errors["born_charges"]["count"] == 2 * 12 * 9
    assert errors["dipole"]["rmse"] < 1e-3 and errors["born_charges"]["r2"] == pytest.approx(1.0)
    assert (tmp_path / "out" / "parity_dipole.png").is_file()
    assert (tmp_path / "out" / "parity_born_charges.png").is_file()
    first, _ = read_frames(tmp_path / "out" / "predictions.xyz", {"born_charges": "nearsight_born_charges"})
    expected = frames_of(path, ("open",))[0].labels[keys.BORN_CHARGES]
    np.testing.assert_allclose(first.labels[keys.BORN_CHARGES], expected, atol=1e-7)


def test_charges_with_the_other_sign(path, tmp_path, run):
    write_extxyz(tmp_path / "data.xyz", frames_of(path, ("open",), -1.0))
    code, out, _ = run("evaluate", path, tmp_path / "data.xyz")
    assert code == 0 and "With the other sign of all charges the R² of dipoles is 1.0000" in out


@pytest.fixture(scope="module")
def crystal(path, tmp_path_factory):
    file = tmp_path_factory.mktemp("crystal") / "crystal.xyz"
    frame = frames_of(path, ("triclinic",))[0]
    frame.labels = {}
    write_extxyz(file, [frame, *frames_of(path, ("open",))])
    return file


def numbers(out):
    """The rows of the table, by column."""
    names = ("rtol", "cutoff", "alpha", "mesh", "order", "estimated", "measured", "ms")
    rows = [line.split() for line in out.splitlines()]
    return [dict(zip(names, row)) for row in rows if len(row) == len(names) and row[0][0].isdigit()]


def test_pme_tune_measures_what_was_asked_for(crystal, run):
    code, out, _ = run(
        "pme-tune", crystal, "--charges", "O=-0.8", "--charges", "H=0.4", "--rtol", "1e-3", "--rtol", "1e-6"
    )
    assert code == 0 and "12 atoms, charges as given" in out and "Ewald's sum took" in out
    for row, rtol in zip(numbers(out), (1e-3, 1e-6), strict=True):
        assert float(row["rtol"]) == rtol
        for name in ("estimated", "measured"):
            assert rtol / 30 < float(row[name]) <= rtol
        assert len(row["mesh"].split("×")) == 3 and 4 <= int(row["order"]) <= 8 and float(row["ms"]) > 0


def test_pme_tune_takes_charges_of_a_model_and_of_the_file(path, crystal, tmp_path, run):
    code, out, _ = run("pme-tune", crystal, "--model", path, "--cutoff", "5", "--order", "6")
    (row,) = numbers(out)
    assert code == 0 and "charges of " in out
    assert float(row["rtol"]) == 1e-4 and row["cutoff"] == "5.00" and row["order"] == "6"
    code, out, _ = run("pme-tune", crystal, "--no-measure", "--precision", "single")
    (row,) = numbers(out)
    assert "charges 1 and -1 e at random" in out and row["measured"] == "-" and "Ewald" not in out
    frame = read_frames(crystal)[0]
    frame.labels[keys.CHARGES] = np.tile([0.5, -0.5], 6)
    write_extxyz(tmp_path / "charges.xyz", [frame])
    code, out, _ = run("pme-tune", tmp_path / "charges.xyz")
    assert code == 0 and "charges of the file" in out


def test_pme_tune_names_the_channel_of_latent_charges(crystal, tmp_path, run):
    model = save(tmp_path / "latent.pt", random_model("latent"))
    code, out, _ = run("pme-tune", crystal, "--model", model)
    assert code == 0 and "of 2" in out and len(numbers(out)) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--frame", "2"), "has 2 frame(s), counted from 0; there is no frame 2"),
        (("--frame", "1"), "has no periodic directions: its charges are summed over all pairs, and there"),
        (("--charges", "O=-0.8"), "has H; give --charges for every element"),
        (("--charges", "O"), "--charges 'O' must be SYMBOL=CHARGE, e.g. O=-0.8"),
        (("--charges", "O=1", "--model", "m.pt"), "--charges and --model both say what the charges are"),
        (("--order", "3"), "order"),
    ],
)
def test_what_pme_tune_refuses(crystal, run, arguments, message):
    code, _, err = run("pme-tune", crystal, *arguments)
    assert code == 1 and message in err


def test_pme_tune_of_a_model_without_charges(crystal, tmp_path, run):
    from core.core_models import save_bpnn

    code, _, err = run("pme-tune", crystal, "--model", save_bpnn(tmp_path / "bpnn.pt"))
    assert code == 1 and "has no electrostatics; take --charges, or another model" in err
