"""Unit factors from CODATA 2018 (exact where the SI is exact). Inside nearsight: Å, eV, e, amu."""

AVOGADRO = 6.02214076e23  # 1/mol, exact
ELEMENTARY_CHARGE = 1.602176634e-19  # C, exact
BOLTZMANN_EV = 1.380649e-23 / ELEMENTARY_CHARGE  # eV/K, exact

HARTREE = 27.211386245988  # eV
BOHR = 0.529177210903  # Å
KJ_PER_MOL = 1000.0 / (AVOGADRO * ELEMENTARY_CHARGE)  # eV per kJ/mol
KCAL_PER_MOL = 4.184 * KJ_PER_MOL  # eV per kcal/mol
NM = 10.0  # Å per nm
COULOMB = HARTREE * BOHR  # eV Å/e², e²/(4π ε0)
GPA = 1e9 * 1e-30 / ELEMENTARY_CHARGE  # eV/Å³ per GPa

LENGTH_UNITS = {"angstrom": 1.0, "bohr": BOHR, "nm": NM}  # names that users give → Å
ENERGY_UNITS = {"eV": 1.0, "hartree": HARTREE, "kcal/mol": KCAL_PER_MOL, "kJ/mol": KJ_PER_MOL}  # → eV
