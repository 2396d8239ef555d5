"""What a cell of a column of labels writes: nothing, a number, a bound on one, or a class."""

from __future__ import annotations

import re

import numpy as np

from domains.contract import GroundworkError, Target

MOLAR = {"M": 0, "mM": 3, "µM": 6, "nM": 9, "pM": 12}
"""Units of concentration -> the power of ten of them that is 1 mol/L."""

_SPELLINGS = {
    **{unit.lower(): unit for unit in MOLAR},
    **{"um": "µM", "μm": "µM", "umol/l": "µM", "μmol/l": "µM"},  # the letter u and the Greek letter for µ
    **{f"{unit[:-1].lower()}mol/l": unit for unit in MOLAR},
    **{
        f"{word}molar": unit for word, unit in zip(("", "milli", "micro", "nano", "pico"), MOLAR, strict=True)
    },
}
_UNIT_IN_NAME = re.compile(r"(?:^|[^a-zµμ])([a-zµμ]+(?:/l)?)\s*[\])]?\s*$", re.IGNORECASE)

_QUALIFIED = re.compile(r"(<=|>=|<<|>>|[<>≤≥~≈=])\s*")
_SIGNS = {"<": -1, "≤": -1, ">": 1, "≥": 1, "~": 0, "≈": 0, "=": 0}


_SPOILT = re.compile(
    r"(?:[<>≤≥~≈=]+\s*)?[-+−]?\d+(?P<comma>,\d+)?(?:\.\d+)?(?:e[-+]?\d+)?(?:\s.*|%|[a-zµμ]{1,2}(?:/[a-z]+)?)?",
    re.IGNORECASE,
)
"""A number, be it with a decimal comma or with words behind it."""


def is_missing(cell: str) -> bool:
    """Whether a cell says that nothing was measured."""
    return cell.strip().lower() in {"", "nan", "na", "n/a", "null", "none"}


def number_of(cell: str) -> float | None:
    """The finite number a cell writes, or None."""
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if np.isfinite(number) else None


def measurement_of(cell: str) -> tuple[float, int] | None:
    """The number in a cell and how it is censored, or None where there is no number.

    ``>10`` and ``≥ 10`` give (10, +1): the truth is at least that. ``<0.5`` gives (0.5, -1). ``3``, ``=3``
    and ``~3`` give (3, 0).
    """
    text = cell.strip()
    qualified = _QUALIFIED.match(text)
    number = number_of(text[qualified.end() :] if qualified else text)
    if number is None:
        return None
    return number, _SIGNS[qualified[1][0]] if qualified else 0


def begins_with_number(cell: str) -> bool:
    """Whether a cell is a number, or would be one without its decimal comma or what stands behind it."""
    return _SPOILT.fullmatch(cell.strip()) is not None


def has_decimal_comma(cell: str) -> bool:
    found = _SPOILT.fullmatch(cell.strip())
    return found is not None and found["comma"] is not None


def is_approximate(cell: str) -> bool:
    """Whether a cell says that its number is approximate (``~3``)."""
    return cell.strip().startswith(("~", "≈"))


def class_label(cell: str) -> str:
    """The label that a cell of a classification target writes."""
    number = number_of(cell)
    return cell.strip() if number is None else f"{number:g}"


def fault_of(target: Target, cell: str) -> str:
    """Why a measured cell is no label of ``target``; empty where it is one."""
    if target.kind != "regression":
        return "" if class_label(cell) in target.classes else "label is not one of the classes"
    if measurement_of(cell) is None:
        return "label is not a number"
    if target.transform != "none" and has_no_logarithm(cell):
        return f"label is not positive, as {target.transform} needs"
    return ""


def has_no_logarithm(cell: str) -> bool:
    """Whether a cell holds a number that is not positive."""
    measured = measurement_of(cell)
    return measured is not None and measured[0] <= 0


def molar_unit(text: str) -> str:
    """The unit of concentration that ``text`` writes, as ``MOLAR`` has it; empty for another one."""
    return _SPELLINGS.get(text.strip().lower(), "")


def unit_in_name(name: str) -> str:
    """The unit of concentration that a column's name ends in (``IC50_nM``, ``ic50 (uM)``); else empty."""
    found = _UNIT_IN_NAME.search(name)
    return molar_unit(found[1]) if found else ""


def transformed_unit(target: str, transform: str, unit: str) -> tuple[str, str]:
    """(unit of what is learnt, unit of the cells) of a column with a transform.

    Raises GroundworkError where pIC50 is asked of cells whose unit is not known to be a concentration, and
    where ``unit`` is another one than the column's name says.
    """
    named = unit_in_name(target)
    if named and molar_unit(unit) not in ("", named):
        raise GroundworkError(
            f"the name of {target!r} says {named}, its unit is given as {unit}: "
            "leave out --unit, or rename the column"
        )
    unit = unit or named
    if transform == "log10":
        return f"log10({unit})" if unit else "log10", unit
    known = molar_unit(unit)
    if not known:
        told = f", and {unit!r} is not one" if unit else ""
        raise GroundworkError(
            f"pIC50 of {target!r} needs its unit of concentration{told}: give --unit nM, uM, mM, M or pM"
        )
    return transform, known


def transformed(target: Target, values: np.ndarray, signs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of cells, float64 [n], and their signs, int8 [n] -> what is learnt, NaN where there is none.

    A bound changes its side where the transform falls: an IC50 above 10 µM is a pIC50 below 5.
    """
    if target.transform == "none":
        return values, signs
    logarithms = np.log10(values, out=np.full(values.shape, np.nan), where=values > 0)
    signs = np.where(np.isfinite(logarithms), signs, 0).astype(np.int8)
    if target.transform == "log10":
        return logarithms, signs
    return MOLAR[target.cell_unit] - logarithms, -signs
