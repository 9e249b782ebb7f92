"""Names of labels, readouts and metadata, each with its shape, unit and sign; the only place that has them.

Shapes: n atoms of a frame, M atoms of a graph (owned, then ghosts), E directed edges.
"""

# Labels of a frame, as nearsight holds them after reading (see nearsight.data for the file's own keys).
ENERGY = "energy"  # scalar | total energy, eV
FORCES = "forces"  # (n, 3) | -dE/dr, eV/Å
VIRIAL = "virial"  # (3, 3) | -dE/dstrain, symmetric, eV; stress = -virial / volume (ASE's sign)
CHARGES = "charges"  # (n,) | partial charges, e
DIPOLE = "dipole"  # (3,) | Σ q_i r_i of the positions as they are, e·Å; without periodic directions
BORN_CHARGES = "born_charges"  # (n, 3, 3) | d(dipole)_a/dr_b, e; in files (n, 9), b runs fastest
TOTAL_CHARGE = "total_charge"  # scalar | e; no label but part of the system: in the frame's info
# Likewise, of a frame whose molecules keep charges of their own, both or none (nearsight.molecules).
MOLECULES = "molecules"  # (n,) int | the same number for the atoms of a molecule
MOLECULE_CHARGES = "molecule_charges"  # (molecules,) or scalar | e, in ascending order of the numbers
SHAPES = {ENERGY: (), FORCES: (3,), VIRIAL: (3, 3), CHARGES: (), DIPOLE: (3,), BORN_CHARGES: (3, 3)}
LABELS = tuple(SHAPES)
OF_ATOMS = (FORCES, CHARGES, BORN_CHARGES)  # with a row of that shape for each atom


def label_shape(name: str, num_atoms: int) -> tuple[int, ...]:
    """Return the shape of a label of a frame."""
    return (num_atoms, *SHAPES[name]) if name in OF_ATOMS else SHAPES[name]


# Keys in data files, configurable; stress (eV/Å³, ASE's sign, (3, 3) or Voigt xx yy zz yz xz xy) stands for
# virial, and Born charges may have the component of the atom's displacement first.
FILE_KEYS = {
    ENERGY: "REF_energy",
    FORCES: "REF_forces",
    VIRIAL: "REF_virial",
    "stress": "REF_stress",
    CHARGES: "REF_charges",
    DIPOLE: "REF_dipole",
    BORN_CHARGES: "REF_born_charges",
    "born_charges_transposed": "REF_bec",
    TOTAL_CHARGE: "total_charge",
}
TOTAL_CHARGE_KEYS = (TOTAL_CHARGE, "charge")  # in Frame.info and in ASE's atoms.info; the first one wins

# Readouts of a model (docs/model_contract.md).
READOUT_ENERGY = "energy"  # (n, members of the committee) | eV, without reference energies
READOUT_HAMILTONIAN = "hamiltonian"  # (n, S(S+1)/2) | eV, upper triangle by rows
READOUT_CHARGE = "charge"  # (n, channels) | e, before the projection to the total charge
READOUT_ELECTRONEGATIVITY = "electronegativity"  # (n, 1) | V, dE/d(charge) of an atom alone without charge
READOUT_CHARGE_WEIGHT = "charge_weight"  # (n, 1) | any number v; w = ln(1 + exp v) shares the missing charge

# Graph: r_ij = r_j - r_i + S @ cell, center i = edge_index[0], neighbor j = edge_index[1], sorted by center.
SPECIES = "species"  # (M,) int64 | index into the model's species list
EDGE_INDEX = "edge_index"  # (2, E) int64
EDGE_VECTORS = "edge_vectors"  # (E, 3) | Å
EDGE_SHIFTS = "edge_shifts"  # (E, 3) int | lattice translations S

# Entries of a model file (docs/file_format.md).
METADATA_FILE = "nearsight.json"
WEIGHTS_FILE = "weights.safetensors"
LABELS_FILE = "labels.json"
CHECKS_FILE = "checks.json"
FORMAT_VERSION = 2

# Architectures that are networks on a descriptor, and those that the core evaluates without libtorch.
DESCRIPTOR_ARCHITECTURES = ("bpnn", "linear")
NATIVE_ARCHITECTURES = (*DESCRIPTOR_ARCHITECTURES, "mace", "none")
