"""The C API's part of committees and extrapolations, through ctypes."""

from __future__ import annotations

from ctypes import byref, sizeof

import numpy as np
import pytest
from committees_for_tests import graph_of, random_model, save

from nearsight.lib import _core

from .c_api import (
    EXTRAPOLATIONS,
    MEMBERS,
    Feature,
    load_model,
    make_evaluator,
    open_library,
    results_for,
    system_of,
)
from .core_models import random_box

BOX, TRAINING = random_box(5), random_box(2)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    model = random_model(3, [graph_of(*TRAINING)], members=3)
    return save(tmp_path_factory.mktemp("c") / "committee.pt", model)


@pytest.fixture(scope="module")
def library():
    return open_library()


@pytest.fixture
def model(library, path):
    handle = load_model(library, path)
    yield handle
    library.ns_model_free(handle)


@pytest.fixture
def evaluator(library, model):
    handle = make_evaluator(library, model)
    yield handle
    library.ns_evaluator_free(handle)


def evaluate(library, evaluator, **arrays) -> int:
    system, results = system_of(*BOX), results_for(**arrays)
    return library.ns_evaluate_system(evaluator, byref(system), byref(results))


def features_of(library, model) -> list[Feature]:
    found = [Feature(sizeof(Feature)) for _ in range(library.ns_model_num_features(model))]
    assert [library.ns_model_feature(model, k, byref(f)) for k, f in enumerate(found)] == [0] * len(found)
    return found


def test_members_and_extrapolations(library, model, evaluator, path):
    assert library.ns_model_num_members(model) == 3
    features = features_of(library, model)
    arrays = {
        "member_energies": np.ones(3),
        "member_forces": np.ones((3, len(BOX[1]), 3)),
        "member_virials": np.ones((3, 6)),
        "extrapolations": np.ones(len(features), dtype=np.longlong),
        "lowest_features": np.array([f.minimum for f in features]),
        "highest_features": np.array([f.maximum for f in features]),
    }
    assert evaluate(library, evaluator, **arrays) == 0
    expected = _core.Evaluator(str(path)).evaluate(*BOX, [True] * 3, members=True, extrapolations=True)
    for name in MEMBERS:  # they are added to
        np.testing.assert_allclose(arrays[name] - 1, expected[name], rtol=1e-12, atol=1e-12)
    found = [
        (f.species, f.label.decode(), count - 1, low, high, f.minimum, f.maximum)
        for f, count, low, high in zip(features, *(arrays[name].tolist() for name in EXTRAPOLATIONS))
        if count > 1
    ]
    assert found == expected["extrapolations"] != []


def test_what_is_refused(library, model, evaluator, bpnn):
    count = library.ns_model_num_features(model)
    assert evaluate(library, evaluator, extrapolations=np.zeros(count, dtype=np.longlong)) == 1
    assert b"extrapolations, lowest_features and highest_features must be given together" in (
        library.ns_last_error()
    )
    for number in (-1, count):
        assert library.ns_model_feature(model, number, byref(Feature(sizeof(Feature)))) == 1
        assert b"there is no such feature" in library.ns_last_error()
    assert library.ns_model_feature(model, 0, byref(Feature(1))) == 1
    assert b"ns_feature is missing or its struct_size" in library.ns_last_error()
    single = load_model(library, bpnn)
    assert library.ns_model_num_members(single) == 1 and library.ns_model_num_features(single) == 0
    library.ns_model_free(single)


def test_centroid_form_of_several_interactions_is_refused(library, messages):
    handle = load_model(library, messages)
    assert library.ns_model_has_centroid_virials(handle) == 0
    evaluator = make_evaluator(library, handle)
    assert evaluate(library, evaluator, centroid_virials=np.zeros((len(BOX[1]), 9))) == 3
    assert (
        b"virials in centroid form (heat flux) need a model with one interaction" in library.ns_last_error()
    )
    library.ns_evaluator_free(evaluator)
    library.ns_model_free(handle)
