"""Bad input: one readable sentence that says what was expected and found, and a non-zero exit."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from ase import Atoms
from lammps_harness import Case, case_input, run_script, write_data
from lammps_models import ManyBody, NotFinite, write_model
from lammps_systems import orthogonal

WATER = Atoms("OHHOHH", cell=[9.0, 9.0, 9.0], pbc=True, positions=[
    [1.0, 1.0, 1.0], [1.96, 1.0, 1.0], [0.76, 1.93, 1.0], [4.0, 4.0, 4.0], [4.96, 4.0, 4.0], [3.76, 4.93, 4.0]
])  # fmt: skip


LEGAL = (
    "legal is: pair_style mlp [precision mixed|double] [backend auto|native|torchscript] "
    "[device cpu|cuda|auto] [messages exchange|halo] "
    "[deviation N [file NAME]] [extrapolation warn N] [extrapolation stop N] "
    "[charge Q|molecules Q|molecules q] [efield X Y Z]"
)


def fails(folder: Path, message: str, case: Case, ranks: int = 1) -> None:
    write_data(folder / "data.0", case.atoms, case.elements, case.units)
    run = run_script(folder, case_input(case, 0), ranks)
    text = " ".join(run.output.split())
    assert run.code != 0, run.output
    assert message in text, run.output[-2000:]
    assert "DONE" not in run.output.split("CASE")[-1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("precison double", f"pair_style mlp does not know the word 'precison'; {LEGAL}"),
        ("model.pt", f"does not know the word 'model.pt'; {LEGAL} (the model file goes to pair_coeff)"),
        ("precision single", "'precision' takes mixed|double, and found single"),
        ("device", "'device' takes cpu|cuda|auto, and found nothing"),
        ("deviation", "'deviation' takes a whole number from 1, and found nothing"),
        ("deviation 0", "'deviation' takes a whole number from 1, and found 0"),
        ("deviation 10 file", "'file' takes the name of a file, and found nothing"),
        ("deviation 10", "deviation needs a committee, and {model} is a single model; merge several with "
         "'nearsight committee'"),
        ("extrapolation", "'extrapolation' takes warn|stop, and found nothing"),
        ("extrapolation warn 1.5", "'extrapolation warn' takes a whole number from 1, and found 1.5"),
        ("extrapolation stop -1", "'extrapolation stop' takes a whole number from 0, and found -1"),
        ("extrapolation warn 10", "needs the ranges of the features in the training set, and {model} with "
         "backend native has none; take backend native and a model that was trained with them"),
    ],
)  # fmt: skip
def test_words_of_pair_style(models: dict[str, Path], tmp_path: Path, words: str, message: str) -> None:
    pair = (f"pair_style mlp {words}", f"pair_coeff * * {models['bpnn']} O H")
    fails(tmp_path, message.replace("{model}", str(models["bpnn"])), Case(WATER, pair))


@pytest.mark.parametrize(
    ("coefficients", "message"),
    [
        ("* * {model} O", "pair_coeff gives 1 elements (O), and the system has 2 atom types; give one "
         "element per type"),
        ("* * {model} O H H", "pair_coeff gives 3 elements (O H H), and the system has 2 atom types"),
        ("* * {model} O C", "maps atom type 2 to 'C', which the model {model} does not know; it knows H O"),
        ("* * {model} H H", "maps atom type 1 (mass 15.999) and atom type 2 (mass 1.008) both to H; name the "
         "elements in the order of the atom types"),
        ("* * {model} O NULL", "maps a type to NULL, which needs another pair style for that type: use "
         "pair_style hybrid"),
        ("1 1 {model} O H", "Pair_coeff must start with * * for pair style mlp"),  # LAMMPS' own
        ("* *", "takes one line 'pair_coeff * * model.pt' and then one element per atom type"),
        ("* * nowhere.pt O H", "nowhere.pt"),
    ],
)  # fmt: skip
def test_pair_coeff(models: dict[str, Path], tmp_path: Path, coefficients: str, message: str) -> None:
    pair = ("pair_style mlp", "pair_coeff " + coefficients.format(model=models["bpnn"]))
    fails(tmp_path, message.format(model=models["bpnn"]), Case(WATER, pair))


def test_two_types_of_one_element(models: dict[str, Path], tmp_path: Path) -> None:
    """Heavy hydrogen beside light hydrogen is no mistake."""
    pair = ("pair_style mlp", f"pair_coeff * * {models['bpnn']} H H")
    hydrogen = Atoms("H4", positions=[[1, 1, 1], [1.8, 1, 1], [4, 4, 4], [4.8, 4, 4]], cell=[9] * 3, pbc=True)
    case = Case(hydrogen, pair, elements=("H", "D"), after_read=("set atom 3*4 type 2", "mass 2 2.014"))
    write_data(tmp_path / "data.0", hydrogen, ["H", "O"])
    run = run_script(tmp_path, case_input(case, 0))
    assert run.code == 0, run.output
    assert "atom type 2 (mass 2.014) -> H" in run.output


@pytest.fixture
def bad_files(tmp_path: Path) -> dict[str, Path]:
    good = write_model(tmp_path / "good.pt", ManyBody())
    (tmp_path / "cut.pt").write_bytes(good.read_bytes()[:2000])
    (tmp_path / "text.pt").write_text("this is no model\n")
    with zipfile.ZipFile(tmp_path / "foreign.pt", "w") as archive:
        archive.writestr("archive/data.pkl", b"\0" * 100)
    write_model(tmp_path / "newer.pt", ManyBody(), format_version=99)
    write_model(tmp_path / "units.pt", ManyBody(), units={"length": "bohr", "energy": "hartree"})
    return {path.stem: path for path in tmp_path.glob("*.pt")}


@pytest.mark.parametrize("kind", ["cut", "text", "foreign", "newer", "units"])
def test_bad_model_files(bad_files: dict[str, Path], tmp_path: Path, kind: str) -> None:
    pair = ("pair_style mlp", f"pair_coeff * * {bad_files[kind]} O H")
    fails(tmp_path, f"ERROR: pair_style mlp: '{bad_files[kind]}' ", Case(WATER, pair), ranks=2)


def test_native_backend_without_native_engine(models: dict[str, Path], tmp_path: Path) -> None:
    pair = ("pair_style mlp backend native", f"pair_coeff * * {models['many_body']} O H")
    fails(tmp_path, "use backend torchscript or auto", Case(WATER, pair))


@pytest.mark.parametrize("units", ["lj", "cgs", "micro", "nano"])
def test_other_units(models: dict[str, Path], tmp_path: Path, units: str) -> None:
    script = [
        "dimension 3",
        f"units {units}",
        "region box block 0 1 0 1 0 1",
        "create_box 2 box",
        "mass * 1.0",
    ]
    script += ["pair_style mlp", f"pair_coeff * * {models['bpnn']} O H", "run 0"]
    run = run_script(tmp_path, script)
    message = f"pair_style mlp works in units metal, real, si and electron, and found units {units}"
    assert run.code != 0 and message in " ".join(run.output.split()), run.output[-2000:]


def test_default_skin_of_units_si(models: dict[str, Path], tmp_path: Path) -> None:
    """It is 1 mm: LAMMPS would ask for more ghost atoms than any memory holds."""
    pair = ("neighbor 0.001 bin", "pair_style mlp", f"pair_coeff * * {models['bpnn']} O H")
    message = "the neighbor skin is 0.001, and the cutoff of the model 4e-10, in units si; set a skin of"
    fails(tmp_path, message, Case(WATER, pair, units="si"))


def test_newton_off(models: dict[str, Path], tmp_path: Path) -> None:
    pair = ("pair_style mlp", f"pair_coeff * * {models['bpnn']} O H")
    fails(tmp_path, "pair_style mlp needs 'newton on'", Case(WATER, pair, before_box=("newton off",)))


def test_comm_mode_multi_with_messages(models: dict[str, Path], tmp_path: Path) -> None:
    pair = ("pair_style mlp", f"pair_coeff * * {models['messages']} O H")
    case = Case(WATER, pair, after_read=("neighbor 0.5 multi", "comm_modify mode multi"))
    fails(tmp_path, "ghosts within 2 cutoffs of the model need 'comm_modify mode single'", case)


def bonded_case(models: dict[str, Path], special_bonds: str) -> tuple[Case, list[str]]:
    """Water with bonds; returns the case and its script."""
    case = Case(
        WATER,
        (
            "pair_style mlp",
            f"pair_coeff * * {models['bpnn']} O H",
            "bond_style zero",
            "bond_coeff 1 1.0",
            special_bonds,
        ),
        atom_style="bond",
        after_read=("create_bonds single/bond 1 1 2",),
    )
    options = "extra/bond/types 1 extra/bond/per/atom 2 extra/special/per/atom 4"
    script = [line.replace("read_data data.0", f"read_data data.0 {options}") for line in case_input(case, 0)]
    return case, script


@pytest.mark.parametrize(("special_bonds", "works"), [("", False), ("special_bonds lj/coul 1 1 1", True)])
def test_excluded_bonded_neighbors(
    models: dict[str, Path], tmp_path: Path, special_bonds: str, works: bool
) -> None:
    case, script = bonded_case(models, special_bonds)
    write_data(tmp_path / "data.0", case.atoms, case.elements)
    data = (tmp_path / "data.0").read_text().replace("Atoms # atomic", "Atoms # bond")
    head, atoms = data.split("Atoms # bond\n\n")
    rows = [row.split(maxsplit=1) for row in atoms.splitlines()]
    (tmp_path / "data.0").write_text(
        head + "Atoms # bond\n\n" + "".join(f"{i} 1 {rest}\n" for i, rest in rows)
    )
    run = run_script(tmp_path, script)
    assert (run.code == 0) == works, run.output
    assert (
        "pair_style mlp must see bonded neighbors, and special_bonds leaves them out" in run.output
    ) != works


@pytest.mark.parametrize("ranks", [1, 2])
def test_atoms_on_top_of_each_other(models: dict[str, Path], tmp_path: Path, ranks: int) -> None:
    atoms = WATER.copy()
    atoms.positions[4] = atoms.positions[5] = [5.0, 5.0, 7.0]  # with two ranks: of the second one
    pair = ("pair_style mlp", f"pair_coeff * * {models['bpnn']} O H")
    fails(tmp_path, "atoms must not be on top of each other", Case(atoms, pair), ranks)


def test_forces_that_are_not_finite(tmp_path: Path) -> None:
    model = write_model(tmp_path / "nan.pt", NotFinite())
    pair = ("pair_style mlp", f"pair_coeff * * {model} O H")
    fails(tmp_path, "energy or forces are not finite at step 0", Case(WATER, pair), ranks=2)


def test_lost_atoms(models: dict[str, Path], tmp_path: Path) -> None:
    """LAMMPS' own check works beside the pair style."""
    pair = ("pair_style mlp", f"pair_coeff * * {models['bpnn']} O H")
    run = ("velocity all set 900.0 0 0", "fix 1 all nve", "timestep 0.01", "thermo 10", "run 100")
    fails(tmp_path, "Lost atoms", Case(orthogonal((3, 3, 3), pbc=(False, True, True)), pair, run=run))


def test_fix_pair_with_an_unknown_array(models: dict[str, Path], tmp_path: Path) -> None:
    pair = ("pair_style mlp", f"pair_coeff * * {models['bpnn']} O H")
    run = ("fix p all pair 1 mlp charge 0", "run 0")
    fails(tmp_path, "Fix pair cannot extract property charge", Case(WATER, pair, run=run))


def test_metadata_that_is_incomplete(tmp_path: Path) -> None:
    model = write_model(tmp_path / "odd.pt", ManyBody(), couple={"kind": "unheard-of"})
    assert json.dumps("unheard-of").strip('"') in (model.read_bytes()).decode("latin1")
    pair = ("pair_style mlp", f"pair_coeff * * {model} O H")
    fails(tmp_path, "unheard-of", Case(WATER, pair))
