"""Chemical symbols by atomic number."""

from __future__ import annotations

from nearsight.errors import ConfigError

_ROWS = (
    "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr",
    "Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe",
    "Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn",
    "Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og",
)
_SYMBOLS = " ".join(_ROWS).split()


def element_symbol(element: str | int) -> str:
    """Return the symbol of an atomic number; a symbol is returned as it is.

    Raises:
        ConfigError: there is no such atomic number.
    """
    if isinstance(element, str):
        return element
    if not 1 <= element <= len(_SYMBOLS):
        raise ConfigError(f"atomic numbers are 1 to {len(_SYMBOLS)}, found {element}")
    return _SYMBOLS[element - 1]


def atomic_number(symbol: str) -> int:
    """Return the atomic number of a chemical symbol.

    Raises:
        ConfigError: there is no such element.
    """
    if symbol not in _SYMBOLS:
        raise ConfigError(f"{symbol!r} is not a chemical symbol, expected one such as H or Cu")
    return _SYMBOLS.index(symbol) + 1
