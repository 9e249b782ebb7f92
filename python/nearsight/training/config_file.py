"""Configurations of training runs as files: read with overrides, written, compared.

An unknown key is an error that names the nearest legal one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from nearsight.errors import ConfigError
from nearsight.training.config import Config

# What may change between a run and its restart.
_PATHS = ("training", "validation", "test", "training_size")  # keys of data that may be paths
FREE_AT_RESTART = ("training.epochs", "training.max_minutes")


class _Loader(yaml.SafeLoader):
    """YAML 1.2 where it matters: 1e-3 is a number, only true and false are booleans, no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        mapping = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            names = [self.construct_object(key) for key, _ in node.value]
            twice = next(name for name in names if names.count(name) > 1)
            raise ConfigError(
                f"Key {twice!r} appears twice in the same section, {str(node.start_mark).strip()}."
            )
        return mapping


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":float"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|false)$"), list("tf"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][-+]?\d+)?$"),
    list("-+.0123456789"),
)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration file.

    Args:
        path: YAML file; relative paths in it start from its folder.
        overrides: "section.key=value", values as in YAML; they win over the file, and relative paths in them
            start from the working directory.

    Raises:
        ConfigError: unreadable, an unknown key, or a value that cannot be right.
    """
    path = Path(path)
    try:
        values = yaml.load(path.read_text(), _Loader) or {}
    except OSError as error:
        raise ConfigError(f"Configuration {str(path)!r} cannot be read: {error.strerror}.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"Configuration {str(path)!r} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(
            f"Configuration {str(path)!r} must hold sections such as 'data:', found {values!r}."
        )
    _make_absolute(values, path.resolve().parent)
    for override in overrides:
        _apply(values, override)
        _make_absolute(values, Path.cwd())
    return parse_config(values)


def parse_config(values: Mapping[str, Any]) -> Config:
    """Validate the values of a configuration; raises ConfigError with the first thing that is wrong."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_first_problem(error)) from None


def _first_problem(error: ValidationError) -> str:
    """An unknown key first, because other problems follow from it; alternatives of one value are joined."""
    by_path: dict[str, list[Mapping[str, Any]]] = {}
    for problem in error.errors():
        if problem["type"] == "extra_forbidden":
            return _unknown_key(problem["loc"])
        by_path.setdefault(_path(problem["loc"])[0], []).append(problem)
    path, problems = next(iter(by_path.items()))
    more = f" ({len(by_path) - 1} more after this one)" if len(by_path) > 1 else ""
    return _bad_value(path, problems) + more


def _apply(values: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    if not equals or not name:
        raise ConfigError(f"Override {override!r} must have the form section.key=value.")
    *sections, key = name.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise ConfigError(f"Override {override!r}: {section!r} is a value, not a section.")
    try:
        values[key] = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"Override {override!r} has a value that is not valid YAML: {error}") from error


def _unknown_key(location: tuple) -> str:
    section, legal = _path(location[:-1])
    near = difflib.get_close_matches(str(location[-1]), legal, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"legal are {', '.join(legal)}."
    return f"Unknown key {str(location[-1])!r} in {section or 'the configuration'}; {hint}"


def _path(location: tuple) -> tuple[str, list[str]]:
    """The dotted path of a location, without pydantic's names of alternatives, and the keys legal there."""
    models: list[type[BaseModel]] = [Config]
    path = []
    for part in location:
        fields = [model.model_fields[part] for model in models if part in model.model_fields]
        if fields:
            models = [model for field in fields for model in _models_in(field.annotation)]
            path.append(part)
        else:  # perhaps the tag of one of several alternatives
            models = [model for model in models if _has_tag(model, part)] or models
    legal = {field.alias or name for model in models for name, field in model.model_fields.items()}
    return ".".join(path), sorted(legal)


def _has_tag(model: type[BaseModel], tag: str | int) -> bool:
    return any(tag in get_args(field.annotation) for field in model.model_fields.values())


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _bad_value(path: str, problems: Sequence[Mapping[str, Any]]) -> str:
    first = problems[0]
    if first["type"] == "missing":
        return f"{path} is missing from the configuration."
    if first["type"] == "value_error":
        of_section = f"{path}: " if path else ""  # of the whole configuration they name what they mean
        return f"{of_section}{first['msg'].removeprefix('Value error, ')}."
    if first["type"] == "union_tag_not_found":
        return f"{path}.{first['ctx']['discriminator'][1:-1]} is missing from the configuration."
    if first["type"] == "union_tag_invalid":
        tag, legal = first["ctx"]["tag"], first["ctx"]["expected_tags"]
        return f"{path}.{first['ctx']['discriminator'][1:-1]} is {tag!r}, expected one of {legal}."
    expected = dict.fromkeys(
        "a section"
        if problem["type"].startswith("model_")
        else problem["msg"].removeprefix("Input should be ")
        for problem in problems
    )
    return f"{path} is {first['input']!r}, expected {' or '.join(expected)}."


def _make_absolute(values: dict[str, Any], folder: Path) -> None:
    """Let the relative paths of the section data start from a folder."""

    def absolute(value: Any) -> Any:
        if isinstance(value, str):
            return str(folder / value)
        if isinstance(value, list):
            return [absolute(entry) for entry in value]
        if isinstance(value, dict):
            return {key: absolute(entry) for key, entry in value.items()}
        return value

    data = values.get("data")
    if isinstance(data, dict):
        data |= {name: absolute(data[name]) for name in _PATHS if name in data}


def dump_config(config: Config) -> str:
    """The configuration with all defaults as YAML; `load_config` reads it back to the same."""
    return yaml.safe_dump(config.model_dump(mode="json", by_alias=True), sort_keys=False, allow_unicode=True)


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Differences that forbid a restart, as "key: old → new"; of two `model_dump`s."""
    before, after = dict(_flat(old)), dict(_flat(new))
    return [
        f"{name}: {before.get(name, 'absent')!r} → {after.get(name, 'absent')!r}"
        for name in sorted(before.keys() | after.keys())
        if name not in FREE_AT_RESTART and before.get(name, "absent") != after.get(name, "absent")
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
