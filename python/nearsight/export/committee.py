"""Several model files as one: a committee, whose energy is the mean of its members."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from nearsight.errors import ModelFileError
from nearsight.export import checks
from nearsight.export.loading import load
from nearsight.export.model_file import read_entry
from nearsight.export.save import save_model
from nearsight.files import replacing
from nearsight.keys import DESCRIPTOR_ARCHITECTURES, LABELS_FILE, WEIGHTS_FILE
from nearsight.models import BPNN
from nearsight.models.networks import NetworkShape


@dataclass(frozen=True)
class _File:
    """A model file, read."""

    path: Path
    module: torch.jit.ScriptModule
    metadata: dict[str, Any]
    tensors: dict[str, Tensor]
    labels: dict[str, list[str]]

    @property
    def members(self) -> int:
        return self.metadata["hyperparameters"]["members"]

    @property
    def descriptor_tensors(self) -> dict[str, Tensor]:
        return {name: t for name, t in self.tensors.items() if name.startswith("descriptor.")}


@dataclass(frozen=True)
class Agreement:
    """How closely a committee's members give the results of the files that they come from, on the check
    structures in double precision."""

    members: int
    energy: float  # largest difference, eV
    forces: float  # eV/Å


class StoredDescriptor(nn.Module):
    """The descriptor of a model file as it is, for a new model."""

    def __init__(self, file: _File):
        super().__init__()
        self.scripted = file.module.descriptor
        self._record = file.metadata["hyperparameters"]["descriptor"]
        self._weights = file.descriptor_tensors
        self._labels = file.labels
        networks = file.module.networks
        self._columns = {
            symbol: getattr(networks, str(kind)).columns
            for kind, symbol in enumerate(file.metadata["species"])
        }

    def forward(self, species: Tensor, edge_index: Tensor, edge_vectors: Tensor, num_owned: int) -> Tensor:
        """Return [num_owned, columns of the table]; arguments as in docs/model_contract.md."""
        return self.scripted(species, edge_index, edge_vectors, num_owned)

    @torch.jit.unused
    def columns(self, symbol: str) -> Tensor:
        """Return the columns of the table that are the features of a center of this species, int64."""
        return self._columns[symbol]

    @torch.jit.unused
    def record(self) -> dict[str, Any]:
        """Return the JSON object of the model file."""
        return self._record

    @torch.jit.unused
    def weights(self) -> dict[str, Tensor]:
        """Return the tensors of the model file."""
        return self._weights

    @torch.jit.unused
    def labels(self, symbol: str) -> list[str]:
        """Return a readable name for each feature of a center of this species."""
        return self._labels[symbol]


def merge_models(paths: Sequence[str | os.PathLike[str]], output: str | os.PathLike[str]) -> Agreement:
    """Write a committee of the models at `paths`, which may be committees themselves.

    Statistics of the features are folded into the first layers, output scales and differences of reference
    energies into the last ones: both exact, the reference energies of the committee are those of the first
    file. Training ranges become those of all training sets together; a species for which one file has none
    gets none. Nothing is left at `output`, and what was there stays, unless every member gives the results of
    its file.

    Raises:
        ModelFileError: a file cannot be read, models do not fit together, or a result differs.
    """
    output = Path(output)
    if len(paths) < 2:
        raise ModelFileError(f"a committee needs at least two model files, found {len(paths)}")
    files = [_read(Path(path)) for path in paths]
    for other in files[1:]:
        _require_same(files[0], other)
    _require_different(files)
    with replacing(output) as temporary:
        save_model(
            temporary,
            _committee(files),
            reference_energies=files[0].metadata["reference_energies"],
            reference_energies_source=files[0].metadata["reference_energies_source"],
            provenance={f"member {k}": _provenance(file) for k, file in enumerate(files, 1)},
            dispersion=files[0].metadata.get("dispersion"),
        )
        agreement = _check(output, temporary, files)
    return agreement


def _read(path: Path) -> _File:
    loaded = load(path)
    metadata = loaded.metadata
    if metadata["architecture"] not in DESCRIPTOR_ARCHITECTURES:
        raise ModelFileError(
            f"{path}: models of architecture '{metadata['architecture']}' cannot be merged, only those of "
            f"{' and '.join(DESCRIPTOR_ARCHITECTURES)}; write a module whose readout energy has a column for "
            "each member"
        )
    if metadata["couple"]["kind"] != "sum":
        raise ModelFileError(
            f"{path}: a model with couple '{metadata['couple']['kind']}'; only models whose energy is a sum "
            "over atoms make a committee"
        )
    tensors = safetensors.torch.load(read_entry(path, WEIGHTS_FILE))
    return _File(path, loaded.module, metadata, tensors, json.loads(read_entry(path, LABELS_FILE)))


def _require_same(first: _File, other: _File) -> None:
    def look(what: str, of: Callable[[_File], Any]) -> None:
        if of(first) != of(other):
            raise ModelFileError(
                f"{first.path} and {other.path} have different {what}: members of a committee differ in "
                "nothing but their weights"
            )

    for name in ("architecture", "species", "cutoff"):
        look(name, lambda file, name=name: file.metadata[name])
    look("descriptors", lambda file: file.metadata["hyperparameters"]["descriptor"])
    look(
        "descriptors", lambda file: {name: t.tolist() for name, t in sorted(file.descriptor_tensors.items())}
    )
    look("networks", lambda file: file.metadata["hyperparameters"]["networks"])
    look("dispersion", lambda file: file.metadata.get("dispersion"))


def _require_different(files: Sequence[_File]) -> None:
    seen: dict[str, _File] = {}
    for file in files:
        symbol = file.metadata["species"][0]
        key = str([t.tolist() for name, t in sorted(file.tensors.items()) if name.startswith(f"{symbol}.0")])
        if key in seen:
            raise ModelFileError(
                f"{seen[key].path} and {file.path} hold the same weights: train members with different seeds"
            )
        seen[key] = file


def _committee(files: Sequence[_File]) -> BPNN:
    first = files[0]
    shapes = {
        symbol: NetworkShape(tuple(record["hidden"]), tuple(record["activation"]))
        for symbol, record in first.metadata["hyperparameters"]["networks"].items()
    }
    model = BPNN(
        first.metadata["species"],
        first.metadata["cutoff"],
        StoredDescriptor(first),
        shapes,
        members=sum(file.members for file in files),
        architecture=first.metadata["architecture"],
        whiten=False,
    )
    same_scale = all(
        torch.equal(file.tensors["output_scale"], first.tensors["output_scale"]) for file in files
    )
    model.output_scale.copy_(first.tensors["output_scale"] if same_scale else torch.ones(1))
    with torch.no_grad():
        for symbol, network in zip(model.species, model.networks):
            parts = [_fold(first, file, symbol, model.output_scale, len(network.layers)) for file in files]
            for number, layer in enumerate(network.layers):
                layer.weight.copy_(torch.cat([part[f"{number}.weight"] for part in parts]))
                layer.bias.copy_(torch.cat([part[f"{number}.bias"] for part in parts]))
            network.shift.copy_(first.tensors[f"{symbol}.shift"])
            network.scale.copy_(_scale(first, symbol))
            if all(f"{symbol}.min" in file.tensors for file in files):
                network.minimum.copy_(torch.stack([f.tensors[f"{symbol}.min"] for f in files]).amin(0))
                network.maximum.copy_(torch.stack([f.tensors[f"{symbol}.max"] for f in files]).amax(0))
    return model


def _scale(file: _File, symbol: str) -> Tensor:
    """Return the scale of the features, 1 where it is 0: of features that the model ignores."""
    scale = file.tensors[f"{symbol}.scale"]
    return torch.where(scale == 0, torch.ones_like(scale), scale)


def _fold(first: _File, file: _File, symbol: str, output_scale: Tensor, num_layers: int) -> dict[str, Tensor]:
    """Return the layers of a file for the shift, scale, output scale and reference energy of the first."""
    own, common = file.tensors, first.tensors
    layers = {
        f"{n}.{x}": own[f"{symbol}.{n}.{x}"].clone() for n in range(num_layers) for x in ("weight", "bias")
    }
    # (G - s) c = (G - s₀) c₀ · c/c₀ + (s₀ - s) c
    weight, scale = layers["0.weight"], own[f"{symbol}.scale"]
    layers["0.bias"] += weight @ ((common[f"{symbol}.shift"] - own[f"{symbol}.shift"]) * scale)
    layers["0.weight"] = weight * (scale / _scale(first, symbol))
    ratio = own["output_scale"] / output_scale
    step = file.metadata["reference_energies"][symbol] - first.metadata["reference_energies"][symbol]
    if (ratio == 1.0).all() and step == 0.0:
        return layers
    activation = file.metadata["hyperparameters"]["networks"][symbol]["activation"][-1]
    if activation != "linear":
        raise ModelFileError(
            f"{file.path}: its output scale or reference energies differ from those of {first.path}, and "
            f"that cannot be folded into a last layer with activation {activation}"
        )
    last = num_layers - 1
    layers[f"{last}.weight"] *= ratio
    layers[f"{last}.bias"] = layers[f"{last}.bias"] * ratio + step / output_scale
    return layers


def _provenance(file: _File) -> dict[str, Any]:
    digest = hashlib.sha256(file.path.read_bytes()).hexdigest()
    return {"file": file.path.name, "sha256": digest, **file.metadata["provenance"]}


def _check(output: Path, committee: Path, files: Sequence[_File]) -> Agreement:
    """Compare every member with its file, and the committee with the mean, with both backends."""
    from nearsight.lib import _core

    metadata = files[0].metadata
    structures = checks.structures(len(metadata["species"]), metadata["cutoff"])
    singles = [_core.Evaluator(str(file.path), backend="native") for file in files]
    largest = [0.0, 0.0]
    for backend in ("native", "torchscript"):
        whole = _core.Evaluator(str(committee), backend=backend)
        for structure in structures:
            arguments = [np.asarray(structure[key]) for key in ("positions", "species", "cell", "pbc")]
            found, start = whole.evaluate(*arguments, members=True), 0
            for file, single in zip(files, singles):
                expected = single.evaluate(*arguments)
                part = slice(start, start + file.members)
                start += file.members
                mean = {
                    "energy": found["member_energies"][part].mean(),
                    "forces": found["member_forces"][part].mean(0),
                    "virial": _matrix(found["member_virials"][part].mean(0)),
                }
                reference = sum(
                    file.metadata["reference_energies"][metadata["species"][kind]]
                    for kind in structure["species"]
                )
                expected |= {"name": structure["name"], "reference_energy": reference}
                difference = checks.disagreement(expected, mean)
                if difference:
                    raise ModelFileError(
                        f"{output}: not written, since the committee's {backend} backend does not give the "
                        f"results of {file.path}: {difference}"
                    )
                for k, name in enumerate(("energy", "forces")):
                    largest[k] = max(largest[k], float(np.abs(mean[name] - expected[name]).max()))
    return Agreement(sum(file.members for file in files), *largest)


def _matrix(virial: np.ndarray) -> np.ndarray:
    return virial[[0, 3, 4, 3, 1, 5, 4, 5, 2]].reshape(3, 3)
