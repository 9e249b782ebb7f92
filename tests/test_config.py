"""The configuration: what is accepted, and the sentence for everything that is not."""

from pathlib import Path

import pytest
import yaml

from nearsight.errors import ConfigError
from nearsight.training.config import Config
from nearsight.training.config_file import changed_keys, dump_config, load_config, parse_config

MINIMAL = "data: {training: water.xyz}\n"


@pytest.fixture
def load(tmp_path):
    def load_text(text, *overrides):
        path = tmp_path / "train.yaml"
        path.write_text(text)
        return load_config(path, overrides)

    return load_text


def test_defaults_and_paths_relative_to_the_file(load, tmp_path):
    config = load("data: {training: [a.xyz, /b.xyz], validation: {indices: val.txt}, test: t.xyz}")
    assert config.data.training == [str(tmp_path / "a.xyz"), "/b.xyz"]
    assert config.data.validation.indices == str(tmp_path / "val.txt")
    assert config.data.test == str(tmp_path / "t.xyz")
    assert config.model.architecture == "bpnn"
    assert config.training.schedule.kind == "cosine"


def test_paths_of_overrides_are_relative_to_the_working_directory(load, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    config = load(
        "data: {training: a.xyz, test: t.xyz}", "data.training=[b.xyz]", "data.validation={indices: v.txt}"
    )
    assert config.data.training == [str(elsewhere / "b.xyz")]
    assert config.data.validation.indices == str(elsewhere / "v.txt")
    assert config.data.test == str(tmp_path / "t.xyz")


def test_overrides_win_and_are_yaml(load):
    config = load(
        MINIMAL + "training: {epochs: 5}\n",
        "training.epochs=7",
        "model.hidden=[8, 8]",
        "training.schedule={kind: plateau, patience: 3}",
        "training.learning_rate=1e-2",
        "training.loss.sigma_energy=null",
    )
    assert config.training.epochs == 7
    assert config.model.hidden == [8, 8]
    assert config.training.schedule.patience == 3
    assert config.training.learning_rate == 0.01
    assert config.training.loss.sigma_energy is None


def test_numbers_and_symbols_are_read_as_they_look(load):
    """YAML 1.1 would read 1e-3 as text and No (nobelium) as false."""
    config = load("data: {training: a.xyz, reference_energies: {No: -1e-3, N: 2, Y: -.5}}")
    assert config.data.reference_energies == {"No": -0.001, "N": 2, "Y": -0.5}


def test_fractions_counts_and_files_keep_their_types(load):
    data = load("data: {training: a.xyz, validation: 20, test: 0.25, training_size: 100}").data
    assert (data.validation, data.test, data.training_size) == (20, 0.25, 100)
    assert (type(data.validation), type(data.test)) == (int, float)


def test_resolved_configuration_reads_back_the_same(load):
    config = load(MINIMAL, "training.schedule={kind: constant}", "data.validation={indices: val.txt}")
    assert load(dump_config(config)) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dta: {}", r"Unknown key 'dta' in the configuration; did you mean 'data'\?"),
        (MINIMAL + "training: {epoch: 5}", r"Unknown key 'epoch' in training; did you mean 'epochs'\?"),
        (
            MINIMAL + "training: {xyzzy: 5}",
            r"Unknown key 'xyzzy' in training; legal are backend, batch_size, ",
        ),
        (MINIMAL + "model: {cutof: 5}", r"Unknown key 'cutof' in model; did you mean 'cutoff'\?"),
        (
            MINIMAL + "training: {schedule: {kind: plateau, patiense: 5}}",
            r"Unknown key 'patiense' in training.schedule; did you mean 'patience'\?",
        ),
        (
            "data: {training: a.xyz, keys: {force: F}}",
            r"Unknown key 'force' in data.keys; did you mean 'forces'\?",
        ),
        ("training: {epochs: 5}", r"^data is missing from the configuration\.$"),
        (
            MINIMAL + "training: {batch_size: 0}",
            "training.batch_size is 0, expected greater than or equal to 1",
        ),
        (MINIMAL + "training: {epochs: '5'}", "training.epochs is '5', expected a valid integer"),
        (
            MINIMAL + "training: {learning_rate: .nan}",
            "training.learning_rate is '.nan', expected a valid number",
        ),
        (
            MINIMAL + "training: {schedule: {kind: step}}",
            "training.schedule.kind is 'step', expected one of 'cosine', 'linear', 'plateau', 'constant'",
        ),
        (
            MINIMAL + "training: {schedule: {kind: linear, final_fraction: 2}}",
            "training.schedule.final_fraction is 2, expected less than or equal to 1",
        ),
        (
            MINIMAL + "training: {loss: {second_stage: {start: 0.5}}}",
            r"^training.loss.second_stage: no weight changes; give energy, .*, dipole or born_charges\.$",
        ),
        (
            MINIMAL + "training: {loss: {second_stage: {start: 1, energy: 9}}}",
            "training.loss.second_stage.start is 1, expected less than 1",
        ),
        (
            MINIMAL + "training: {epochs: 4, loss: {second_stage: {start: 0.8, energy: 9}}}",
            r"training: loss.second_stage.start is 0.8, but the last of 4 epoch\(s\) begins at 0.75 of the "
            "run; give at most that, or more epochs",
        ),
        (
            MINIMAL + "model: {architecture: linear}\ntraining: {loss: {second_stage: {energy: 9}}}",
            "training.loss.second_stage is given, but a linear model is solved in one; leave it out",
        ),
        (MINIMAL + "training: {schedule: {patience: 3}}", "training.schedule.kind is missing"),
        (
            MINIMAL + "training: {optimizer: {kind: shampoo_adam, amsgrad: true}}",
            "Unknown key 'amsgrad' in training.optimizer; legal are betas, block_size, frequency, kind, ",
        ),
        (
            MINIMAL + "training: {optimizer: {kind: shampoo_adam, betas: [0.9, 1.0]}}",
            "training.optimizer.betas is 1.0, expected less than 1",
        ),
        (
            MINIMAL + "training: {optimizer: {kind: shampoo_adam, betas: [0.9]}}",
            r"training.optimizer.betas is \[0.9\], expected List should have at least 2 items",
        ),
        (
            MINIMAL + "training: {optimizer: {kind: shampoo_adam, shampoo_beta: -0.1}}",
            "training.optimizer.shampoo_beta is -0.1, expected greater than or equal to 0",
        ),
        (
            MINIMAL + "training: {optimizer: {kind: shampoo_adam, frequency: 0}}",
            "training.optimizer.frequency is 0, expected greater than or equal to 1",
        ),
        (
            MINIMAL + "training: {optimizer: {kind: shampoo_adam, block_size: 1}}",
            "training.optimizer.block_size is 1, expected greater than or equal to 2",
        ),
        (
            MINIMAL + "model: {descriptor: {kind: ani, zetta: 3}}",
            r"Unknown key 'zetta' in model.descriptor; did you mean 'zeta'\?",
        ),
        (
            MINIMAL + "model: {descriptor: {kind: ami}}",
            "model.descriptor.kind is 'ami', expected one of 'acsf', 'ace', 'ani', 'soap'",
        ),
        (MINIMAL + "training: {schedule: 3}", "training.schedule is 3, expected a section"),
        (
            "data: {training: a.xyz, validation: [3]}",
            r"data.validation is \[3\], expected a valid number or a valid integer or a section or ",
        ),
        (MINIMAL + "model: {hidden: [0]}", "model: hidden layers need at least one node"),
        (
            "data: {training: a.xyz, training: b.xyz}",
            "Key 'training' appears twice in the same section, .*line 1",
        ),
        ("- 1", r"must hold sections such as 'data:', found \[1\]"),
        ("data: [", "is not valid YAML"),
    ],
)
def test_what_is_wrong_is_said(load, text, message):
    with pytest.raises(ConfigError, match=message):
        load(text)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epochs", "must have the form section.key=value"),
        ("=5", "must have the form section.key=value"),
        ("data.training.epochs=5", "'training' is a value, not a section"),
        ("training.epochs=[", "not valid YAML"),
        ("trainig.epochs=5", r"Unknown key 'trainig' in the configuration; did you mean 'training'\?"),
    ],
)
def test_bad_overrides(load, override, message):
    with pytest.raises(ConfigError, match=message):
        load(MINIMAL, override)


def test_missing_file(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_config(tmp_path / "none.yaml")


def test_several_problems_are_counted():
    with pytest.raises(ConfigError, match=r"epochs is -1, .* \(1 more after this one\)"):
        parse_config({"data": {"training": "a"}, "training": {"batch_size": -1, "epochs": -1}})


def test_changed_keys_leave_out_the_length_of_the_run():
    def dump(**training):
        return Config(data={"training": "a.xyz"}, training=training).model_dump(mode="json")

    assert changed_keys(dump(epochs=5), dump(epochs=9, max_minutes=1.0)) == []
    assert changed_keys(dump(), dump(batch_size=9)) == ["training.batch_size: 2 → 9"]
    assert changed_keys(dump(), dump(schedule={"kind": "constant"})) == [
        "training.schedule.final_fraction: 0.01 → 'absent'",
        "training.schedule.kind: 'cosine' → 'constant'",
    ]


def test_the_configuration_of_3bpa():
    config = load_config(Path(__file__).parent.parent / "examples" / "3bpa" / "one_interaction.yaml")
    assert config.model.num_interactions == 1
    assert config.training.max_minutes == 15


def test_the_tutorial_configuration_has_every_key_with_its_default():
    """examples/train.yaml; of the model only the keys of everyday use."""
    config = load_config(Path(__file__).parent.parent / "examples" / "train.yaml")
    default = Config(data={"training": config.data.training})
    assert config == default
    text = (Path(__file__).parent.parent / "examples" / "train.yaml").read_text()
    written = yaml.safe_load(text)
    for section in ("data", "training"):
        assert set(written[section]) == set(default.model_dump()[section])
    assert set(written["training"]["loss"]) == set(default.training.loss.model_dump())
