"""Program for the Python that has mace-torch: unpickles a model and writes its numbers, which no code is in.

    python mace_extract.py model.model FOLDER

writes FOLDER/record.json and FOLDER/arrays.npz. Where the model cannot be taken over, record.json has the one
key "error", or "missing" for a package. It needs torch, e3nn, numpy and mace-torch, and nothing of nearsight.

Arrays are float64. Matrices are [in, out] with e3nn's path weights and gains multiplied in; irreps keep
e3nn's order of components. Names: see `_layer` and `read`.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import warnings

BLOCKS = {
    "RealAgnosticInteractionBlock": {"residual": False, "density": False},
    "RealAgnosticResidualInteractionBlock": {"residual": True, "density": False},
    "RealAgnosticDensityInteractionBlock": {"residual": False, "density": True},
    "RealAgnosticDensityResidualInteractionBlock": {"residual": True, "density": True},
}
MODELS = ("MACE", "ScaleShiftMACE")
BASES = {"BesselBasis": "bessel", "ChebychevBasis": "chebyshev", "GaussianBasis": "gaussian"}
TRANSFORMS = {"AgnesiTransform": ("agnesi", "q", "p", "a"), "SoftTransform": ("soft", "alpha")}
MAX_CORRELATION = 3


class Unknown(Exception):
    """The model has something that cannot be taken over."""


def array(tensor):
    """Return a float64 array."""
    return tensor.detach().cpu().double().numpy()


def known(what, part, names):
    """Return the name of the class of a part of the model, if it is among the names."""
    name = type(part).__name__
    if name not in names:
        raise Unknown(f"the {what} is a {name}, which is not known; expected {' or '.join(names)}")
    return name


def linear(what, module):
    """Return {irrep: [in, out]} of an e3nn Linear; blocks of one irrep follow each other in both."""
    import numpy as np

    known(what, module, ("Linear",))
    if any(ins.i_in < 0 for ins in module.instructions):
        raise Unknown(f"the {what} has a bias, which is not known")
    weight, begin, blocks = array(module.weight), 0, {}
    for ins in module.instructions:
        size = int(np.prod(ins.path_shape))
        block = weight[begin : begin + size].reshape(ins.path_shape) * ins.path_weight
        blocks[ins.i_in, ins.i_out] = block
        begin += size
    result = {}
    for ir in {str(module.irreps_out[i_out].ir) for _, i_out in blocks}:
        places = [
            [i for i, part in enumerate(irreps) if str(part.ir) == ir]
            for irreps in (module.irreps_in, module.irreps_out)
        ]
        result[ir] = np.block([[blocks[i, o] for o in places[1]] for i in places[0]])
    return result


def per_species(what, module):
    """Return {irrep: [species, in, out]} of an e3nn FullyConnectedTensorProduct with one-hot species."""
    import numpy as np

    known(what, module, ("FullyConnectedTensorProduct",))
    weight, begin, result = array(module.weight), 0, {}
    for ins in module.instructions:
        size = int(np.prod(ins.path_shape))
        block = weight[begin : begin + size].reshape(ins.path_shape).transpose(1, 0, 2)
        ir = module.irreps_out[ins.i_out].ir
        if str(ir) in result:
            raise Unknown(f"the {what} has {ir} more than once")
        result[str(ir)] = block * ins.path_weight / ir.dim**0.5
        begin += size
    return result


def silu_gain(what, activation):
    """Return the factor of an activation that is silu times a factor."""
    import torch

    x = torch.linspace(-3.0, 3.0, 8, dtype=torch.float64)
    gains = activation(x) / torch.nn.functional.silu(x)
    if not torch.allclose(gains, gains[:1], rtol=1e-6, atol=0.0):
        raise Unknown(f"the activation of the {what} is not silu")
    return float(gains[0])


def dense(what, network):
    """Return matrices [in, out] of an e3nn FullyConnectedNet, with plain silu between them."""
    known(what, network, ("FullyConnectedNet",))
    matrices, gain = [], 1.0
    for layer in network.children():
        matrices.append(gain * array(layer.weight) / (layer.h_in * layer.var_in) ** 0.5)
        gain = layer.var_out**0.5
        if layer.act is not None:
            gain *= silu_gain(what, layer.act)
    matrices[-1] = matrices[-1] * gain
    return matrices


def polynomials(contraction, output, num_species):
    """Return the polynomials of one output irrep, and their weights [species, paths, channels].

    Rows are (path, component of the output, a, b, c, coefficient), a <= b <= c components of the message, -1
    in front where the degree is lower.
    """
    import numpy as np

    rows, weights, paths = [np.zeros((0, 6))], [], 0
    for nu in range(1, contraction.correlation + 1):
        highest = nu == contraction.correlation
        weight = contraction.weights_max if highest else contraction.weights[contraction.correlation - 1 - nu]
        tensor = product_tensor(contraction, output, nu)
        places = np.argwhere(np.abs(tensor) > 1e-12)
        keys = np.full((len(places), 5), -1)
        keys[:, 0], keys[:, 1] = paths + places[:, -1], places[:, 0]
        keys[:, 5 - nu :] = np.sort(places[:, 1:-1], axis=1)
        unique, where = np.unique(keys, axis=0, return_inverse=True)
        sums = np.zeros(len(unique))
        np.add.at(sums, where.ravel(), tensor[tuple(places.T)])
        rows.append(np.concatenate([unique, sums[:, None]], axis=1)[np.abs(sums) > 1e-12])
        weights.append(array(weight))
        paths += tensor.shape[-1]
    weight = np.concatenate(weights, axis=1)
    if len(weight) == 1:  # one for all species
        weight = np.repeat(weight, num_species, axis=0)
    return np.concatenate(rows), weight


def product_tensor(contraction, output, nu):
    """Return mace-torch's U [component of the output, nu components, paths].

    Where it is stored in single precision it is made anew, unless that gives another one.
    """
    import torch
    from mace.tools.cg import U_matrix_real

    stored = contraction.U_tensors(nu)
    result = array(stored)
    # With cuEquivariance installed mace-torch makes a smaller set of polynomials, if the model asks for it.
    for reduced in (True, False) if stored.dtype == torch.float32 else ():
        made = U_matrix_real(
            contraction.coupling_irreps, str(output), nu, dtype=torch.float64, use_cueq_cg=reduced
        )
        tensor = array(made[-1])
        if tensor.shape == result.shape and abs(tensor - result).max() < 1e-5:
            result = tensor
    return result if result.ndim == nu + 2 else result[None]


def uniform(what, irreps):
    """Return the irreps as texts and their one multiplicity."""
    found, channels = [str(part.ir) for part in irreps], {part.mul for part in irreps}
    if len(set(found)) < len(found) or len(channels) != 1:
        raise Unknown(f"the {what} are {irreps}, expected every irrep once, with the same number of channels")
    return found, channels.pop()


def interaction(block, arrays):
    """Return the record of an interaction block, and fill its arrays: up, message, selector, radial."""
    from e3nn import o3

    kind = BLOCKS[known("interaction block", block, BLOCKS)]
    product = block.conv_tp
    known("tensor product", product, ("TensorProduct",))
    inputs, channels = uniform("features of atoms", block.node_feats_irreps)
    if uniform("features on edges", product.irreps_in1) != (inputs, channels):
        raise Unknown(
            f"the features on edges are {product.irreps_in1}, which is not known; expected those of the "
            f"atoms, {block.node_feats_irreps}"
        )
    paths = []
    for n, ins in enumerate(product.instructions):
        ends = (
            product.irreps_in1[ins.i_in1].ir,
            product.irreps_in2[ins.i_in2].ir,
            product.irreps_out[ins.i_out].ir,
        )
        if ins.i_out != n or ins.connection_mode != "uvu" or ends[1].p != (-1) ** ends[1].l:
            raise Unknown("the tensor product has paths of a kind that is not known (use_so3?)")
        paths.append([str(ends[0]), ends[1].l, str(ends[2]), float(ins.path_weight)])
        ls = tuple(ir.l for ir in ends)
        arrays["w3j.{}.{}.{}".format(*ls)] = o3.wigner_3j(*ls).double().numpy()
    parts = {"up": linear("linear_up", block.linear_up), "message": linear("linear", block.linear)}
    parts["selector"] = per_species("skip_tp", block.skip_tp)
    result = {f"{name}.{ir}": matrix for name, part in parts.items() for ir, matrix in part.items()}
    networks = {"radial": block.conv_tp_weights}
    if kind["density"]:
        networks["density"] = block.density_fn
    for name, network in networks.items():
        result.update({f"{name}.{n}": matrix for n, matrix in enumerate(dense(name, network))})
    record = dict(kind, input=inputs, paths=paths, channels=channels)
    record["neighbors"] = 1.0 if kind["density"] else float(block.avg_num_neighbors)
    return record, result


def readout(block):
    """Return arrays of a readout block: "readout.0" [channels, heads], or of two layers with silu between."""
    if known("readout", block, ("LinearReadoutBlock", "NonLinearReadoutBlock")) == "LinearReadoutBlock":
        return {"readout.0": linear("readout", block.linear)["0e"]}
    first, second = (linear("readout", part)["0e"] for part in (block.linear_1, block.linear_2))
    gain = silu_gain("readout", block.non_linearity.acts[0])
    return {"readout.0": first, "readout.1": gain * second}


def layers(model, arrays):
    """Return the records of all interactions and fill the arrays `layers.<t>.<name>`."""
    records = []
    for t, (block, product) in enumerate(zip(model.interactions, model.products)):
        record, found = interaction(block, arrays)
        contraction = product.symmetric_contractions
        known("symmetric contraction", contraction, ("SymmetricContraction",))
        record["message"], _ = uniform("messages", contraction.irreps_in)
        record["output"], _ = uniform("features of atoms", contraction.irreps_out)
        record["correlation"] = max(part.correlation for part in contraction.contractions)
        if record["correlation"] > MAX_CORRELATION:
            raise Unknown(f"the correlation is {record['correlation']}, expected at most {MAX_CORRELATION}")
        for output, part in zip(record["output"], contraction.contractions):
            pair = polynomials(part, output, len(model.atomic_numbers))
            found[f"product.terms.{output}"], found[f"product.weights.{output}"] = pair
        update = linear("linear of the product", product.linear)
        found.update({f"update.{ir}": matrix for ir, matrix in update.items()})
        record["skip"] = bool(product.use_sc and record["residual"])
        if len(model.readouts) == len(model.interactions):
            found.update(readout(model.readouts[t]))
        elif t == len(model.interactions) - 1:
            found.update(readout(model.readouts[-1]))
        arrays.update({f"layers.{t}.{name}": values for name, values in found.items()})
        records.append(record)
    return records


def radial(model, arrays):
    """Return the record of the radial basis and fill the arrays `radial.…`."""
    embedding = model.radial_embedding
    basis, transform = embedding.bessel_fn, getattr(embedding, "distance_transform", None)
    kind = BASES[known("radial basis", basis, BASES)]
    if kind == "bessel":
        arrays["radial.frequencies"] = array(basis.bessel_weights)
        arrays["radial.prefactor"] = array(basis.prefactor).reshape(1)
    if kind == "gaussian":
        arrays["radial.centers"] = array(basis.gaussian_weights)
    record = {
        "basis": kind,
        "count": int(embedding.out_dim),
        "width": float((-0.5 / basis.coeff) ** 0.5) if kind == "gaussian" else None,
        "envelope_order": int(embedding.cutoff_fn.p),
        "envelope": "basis" if getattr(embedding, "apply_cutoff", True) else "functions",
        "transform": None,
    }
    if transform is not None:
        name, *constants = TRANSFORMS[known("distance transform", transform, TRANSFORMS)]
        record["transform"] = {"kind": name, **{key: float(getattr(transform, key)) for key in constants}}
        arrays["radial.radii"] = array(transform.covalent_radii[model.atomic_numbers])
    return record


def repulsion(model, arrays):
    """Return the record of the ZBL repulsion, None without one."""
    block = getattr(model, "pair_repulsion_fn", None)
    if block is None:
        return None
    known("pair repulsion", block, ("ZBLBasis",))
    arrays["zbl.radii"] = array(block.covalent_radii[model.atomic_numbers])
    return {"p": int(block.p), "a_exponent": float(block.a_exp), "a_prefactor": float(block.a_prefactor)}


def read(model):
    """Return record and arrays of a model."""
    import numpy as np

    known("model", model, MODELS)
    for name in ("joint_embedding", "embedding_readout"):
        if hasattr(model, name):
            raise Unknown(f"the model has a {name} (of charges, spins or the like), which is not known")
    arrays = {}
    heads = list(getattr(model, "heads", None) or ["Default"])
    scaled = hasattr(model, "scale_shift")
    arrays["embedding"] = linear("node embedding", model.node_embedding.linear)["0e"]
    energies = np.atleast_2d(array(model.atomic_energies_fn.atomic_energies))
    arrays["energies"] = np.broadcast_to(energies, (len(heads), energies.shape[1])).copy()
    for name, default in (("scale", 1.0), ("shift", 0.0)):
        values = array(getattr(model.scale_shift, name)) if scaled else np.array(default)
        arrays[name] = np.broadcast_to(values.reshape(-1), len(heads)).copy()
    record = {
        "model": type(model).__name__,
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        "atomic_numbers": [int(number) for number in model.atomic_numbers],
        "cutoff": float(model.r_max),
        "heads": heads,
        "l_max": max(part.ir.l for part in model.spherical_harmonics.irreps_out),
        "radial": radial(model, arrays),
        "zbl": repulsion(model, arrays),
        "layers": layers(model, arrays),
    }
    return record, arrays


def check(model, heads):
    """Return a molecule and what mace-torch gives for it in double precision with every head."""
    import torch

    model = model.double()
    generator = torch.Generator().manual_seed(1)
    cutoff, count, found = float(model.r_max), 12, []
    while len(found) < count:
        candidate = torch.rand(3, generator=generator, dtype=torch.float64) * (2.0 + 0.7 * cutoff)
        if all(torch.dist(candidate, other) > 1.1 for other in found):
            found.append(candidate)
    positions = torch.stack(found)
    species = torch.randperm(count, generator=generator) % len(model.atomic_numbers)
    pairs = [(j, i) for i, j in itertools.permutations(range(count), 2)]
    edges = torch.tensor([p for p in pairs if torch.dist(found[p[0]], found[p[1]]) < cutoff]).T
    zeros = torch.zeros(edges.shape[1], 3, dtype=torch.float64)
    results = []
    for head in range(len(heads)):
        data = {
            "positions": positions.clone(),
            "node_attrs": torch.eye(len(model.atomic_numbers), dtype=torch.float64)[species],
            "edge_index": edges,
            "shifts": zeros,
            "unit_shifts": zeros,
            "cell": torch.zeros(3, 3, dtype=torch.float64),
            "batch": torch.zeros(count, dtype=torch.int64),
            "ptr": torch.tensor([0, count]),
            "head": torch.tensor([head]),
        }
        with torch.enable_grad():
            output = model(data, training=False, compute_force=True)
        results.append({key: output[key].detach().tolist() for key in ("energy", "forces")})
    numbers = [int(model.atomic_numbers[kind]) for kind in species]
    return {"positions": positions.tolist(), "atomic_numbers": numbers, "results": results}


def unpickle(path):
    """Return the model of the file in e3nn's layout, on the CPU. This is what executes code of the file."""
    import torch

    model = torch.load(path, map_location="cpu", weights_only=False)
    if isinstance(model, torch.jit.ScriptModule):
        raise Unknown(
            "the file has a compiled model, which has no structure left; give the one it was made from"
        )
    if not isinstance(model, torch.nn.Module):
        raise Unknown(
            f"the file has a {type(model).__name__}, expected a model; is it a checkpoint of the training?"
        )
    known("model", model, MODELS)
    configuration = getattr(model, "cueq_config", None) or getattr(model.products[0], "cueq_config", None)
    if configuration is not None and configuration.enabled:
        from mace.cli.convert_cueq_e3nn import run

        model = run(model, device="cpu")
    return model.eval()


def main(path, folder):
    """Write the arrays of the model at `path` into the folder; return the record, or why there is none."""
    warnings.simplefilter("ignore")
    # Files that e3nn brings are older than the check that torch makes by now when it reads them.
    os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"
    try:
        import e3nn
        import mace
        import numpy as np
        import torch
    except ImportError as error:
        return {"missing": error.name or str(error)}
    try:
        model = unpickle(path)
        torch.set_default_dtype(torch.float64)  # of what e3nn and mace-torch make anew
        record, arrays = read(model)
        record["check"] = check(model, record["heads"])
    except Unknown as error:
        return {"error": str(error)}
    except ImportError as error:
        return {"missing": error.name or str(error)}
    except Exception as error:  # whatever a file of another version leads to
        return {"error": f"mace-torch {mace.__version__} fails: {type(error).__name__}: {error}"}
    np.savez(os.path.join(folder, "arrays.npz"), **arrays)
    return dict(record, versions={"mace-torch": mace.__version__, "e3nn": e3nn.__version__})


if __name__ == "__main__":
    answer = main(*sys.argv[1:3])
    with open(os.path.join(sys.argv[2], "record.json"), "w", encoding="utf-8") as out:
        json.dump(answer, out)
