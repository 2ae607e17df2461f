"""Which elements a site of a CIF holds, by its type symbol or its label."""

from __future__ import annotations

import re
from collections.abc import Collection

from ase.data import chemical_symbols

ELEMENTS = frozenset(chemical_symbols[1:104])  # to Lr; NH, CN and HS are groups of atoms and no element of a crystal
VACANCY = {"vac", "va", "vacancy"}
ISOTOPES = {"D": "H"}
SYMBOL = re.compile(r"([A-Za-z]+)[\d.]*[+-]?\d*")  # with a charge, as in Mn3+, O2-, Fe+3, Na+ and Li0+
SHARE = re.compile(r"(\d*\.?\d+)\s*([A-Z][a-z]?)\d*[+-]?")  # of 0.8Nb + 0.2Zr, as the Pauling File writes it
REMEDY = "Give each site the symbol of its element in `_atom_site_type_symbol`, and each atom of a group its own site"


def of_symbol(symbol: str, site: str, formula: Collection[str]) -> dict[str, float]:
    """Elements and their shares of a site with this ``_atom_site_type_symbol``; empty for a vacancy.

    Args:
        symbol: of the site.
        site: its label.
        formula: elements of the file's formula; empty if it has none.

    Raises:
        ValueError: it names no element.
    """
    shares = [SHARE.fullmatch(part.strip()) for part in re.split(r"\s\+\s", symbol)]
    if len(shares) > 1 and all(match and match[2] in ELEMENTS for match in shares):
        return {match[2]: float(match[1]) for match in shares if match}
    if symbol.lower() in VACANCY:
        return {}
    match = SYMBOL.fullmatch(symbol)
    element = _element(match[1]) if match else None
    if element is None or not _is_meant(match[1] if match else "", element, formula):
        raise ValueError(f"site {site}: {symbol!r} is not an element. {REMEDY}")
    return {element: 1.0}


def of_label(label: str, formula: Collection[str], labels: Collection[str]) -> tuple[dict[str, float], str]:
    """The element of a site that has only a label, such as Fe1, OA2 or CL1, and a warning if it is a guess.

    Args:
        label: of the site.
        formula: elements of the file's formula; empty if it has none. Without it, nothing is guessed.
        labels: of all sites.

    Raises:
        ValueError: the label names no element, or a group such as OH whose other atoms have no sites.
    """
    letters = _letters(label)
    if letters.lower() == "vac":
        return {}, ""
    element = _element(letters)
    is_mixture = re.search("[/,+]", label)
    if element and _is_meant(letters, element, formula) and not is_mixture:
        unsure = not formula and len(letters) == 2 and letters.isupper() and all(map(_element, letters))
        return {element: 1.0}, f"site {label} was read as {element}, not as two elements. {REMEDY}" if unsure else ""
    held = {_element(_letters(other)) for other in labels}  # elements that have sites of their own
    guesses = {
        start: found
        for start in (letters[:2], letters[:1])
        if not is_mixture and (found := _element(start)) in formula and _is_meant(start, str(found), formula)
    }
    for start, found in guesses.items():
        rest = _element(letters[len(start) :])
        if len(guesses) == 1 and len(letters) < 4 and (found == "H" or rest not in formula or rest in held):
            return {str(found): 1.0}, f"site {label} was read as {found}: it has no `_atom_site_type_symbol`"
    raise ValueError(f"site {label}: this label is not an element, and may stand for a group. {REMEDY}")


def _letters(label: str) -> str:
    match = re.match(r"[A-Za-z]*", label)
    return match[0] if match else ""


def _element(letters: str) -> str | None:
    """The element of these letters, whatever their case; H for D."""
    symbol = ISOTOPES.get(letters, letters.title())
    return symbol if symbol in ELEMENTS else None


def _is_meant(letters: str, element: str, formula: Collection[str]) -> bool:
    """Whether two capitals, such as CO and HO, are this element and not two: the file's formula must list it."""
    return len(letters) == 1 or letters[1:].islower() or not formula or element in formula
