"""Models with charges on a device, against the CPU."""

from __future__ import annotations

import numpy as np
import pytest
from core.charge_models import CELLS, KINDS, case, random_model
from core.equilibrated_files import equilibrated
from core.test_charge_models import save

from nearsight.lib import _core


@pytest.fixture(scope="module", params=[*KINDS, "equilibrated"])
def charged(request, tmp_path_factory):
    """The kind of charges, and the file of a model with them."""
    folder, kind = tmp_path_factory.mktemp("charged"), request.param
    if kind == "equilibrated":
        return kind, equilibrated(folder, residual=1e-12)[1]
    return kind, save(folder / "model.pt", random_model(kind))


def results(path, one, precision, device):
    return _core.Evaluator(str(path), precision=precision, device=device).evaluate(*one)


@pytest.mark.parametrize("cell", CELLS)
def test_equals_the_cpu(charged, cell):
    kind, path = charged
    one = case(cell, False, kind)
    expected = results(path, one, "double", "cpu")
    found = results(path, one, "double", "cuda")
    assert found["electrostatic_energy"] == pytest.approx(expected["electrostatic_energy"], rel=1e-10)
    for key in ("energy", "forces", "virial", "charges", "potentials"):
        scale = np.abs(expected[key]).max()
        np.testing.assert_allclose(found[key], expected[key], rtol=0, atol=1e-10 * scale, err_msg=key)


@pytest.mark.parametrize("cell", CELLS)
def test_mixed_precision(charged, cell):
    """In double the mesh is another one, so that results differ by what `rtol` says."""
    kind, path = charged
    one = case(cell, False, kind)
    expected = results(path, one, "mixed", "cpu")
    found = results(path, one, "mixed", "cuda")
    np.testing.assert_allclose(found["forces"], expected["forces"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(found["charges"], expected["charges"], rtol=0, atol=1e-5)


def test_several_steps(charged):
    """Lists, and what charges remember, are kept from step to step."""
    kind, path = charged
    one = case("triclinic", False, kind)
    evaluators = [_core.Evaluator(str(path), precision="double", device=device) for device in ("cuda", "cpu")]
    rng = np.random.default_rng(71)
    for _ in range(4):
        found, expected = (evaluator.evaluate(*one) for evaluator in evaluators)
        for key in ("energy", "forces"):
            scale = np.abs(expected[key]).max()
            np.testing.assert_allclose(found[key], expected[key], rtol=0, atol=1e-10 * scale, err_msg=key)
        one = one._replace(positions=one.positions + 0.03 * rng.normal(size=one.positions.shape))
