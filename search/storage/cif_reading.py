"""Reading CIF and magnetic CIF: blocks, sites, occupancies, and whether the atoms are those of the file's formula."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

import gemmi
import numpy as np
from pymatgen.core import Lattice

from search.storage.cif_elements import ELEMENTS, of_label, of_symbol
from search.storage.cif_symmetry import NAMES, Operations, Tags, first, orbit, settings
from search.storage.sites import Sites, near_pairs, overlaps, with_warnings

COORDINATES = ("_atom_site_fract_x", "_atom_site_fract_y", "_atom_site_fract_z")
SAME_PLACE = 0.02  # Å; images and sites closer than this are one
LOOSEST = 0.25  # Å, the same for coordinates of few digits
FORMULA = 0.02  # relative difference from the file's formula that is rounding


@dataclass(frozen=True, eq=False, kw_only=True)
class CifSite:
    """One row of ``_atom_site``.

    Attributes:
        label: its name.
        place: (3,) fractional.
        digits: decimals of its coordinates, at most.
        species: element -> occupancy; empty for a vacancy.
        occupancy_digits: decimals of its occupancy.
        moment: (3,) μB, Cartesian; None if the file gives none.
    """

    label: str
    place: np.ndarray
    digits: int
    species: Mapping[str, float]
    occupancy_digits: int
    moment: np.ndarray | None


def cif_blocks(text: str) -> list[tuple[str, Tags | str]]:
    """Name and tags of each block that describes a crystal; why, in place of the tags, if its syntax is wrong."""
    text = text.lstrip("\ufeff").replace("\u2212", "-")
    text = "".join(letter if letter.isascii() else "?" for letter in text)
    try:
        blocks: list[tuple[str, Tags | str]] = [
            (block.name, _tags(block)) for block in gemmi.cif.read_string(text, check_level=0)
        ]
    except (ValueError, RuntimeError):
        blocks = [_block_alone(text, *span) for span in _spans(text)]
    return [(name, tags) for name, tags in blocks if isinstance(tags, str) or COORDINATES[0] in tags]


def _spans(text: str) -> list[tuple[int, int]]:
    starts = [match.start() for match in re.finditer(r"^data_", text, flags=re.MULTILINE | re.IGNORECASE)]
    return list(pairwise([*starts, len(text)]))


def _block_alone(text: str, start: int, end: int) -> tuple[str, Tags | str]:
    """One block of a file in which some block has wrong syntax."""
    lines_before = "\n" * text.count("\n", 0, start)  # so that messages give the lines of the whole file
    try:
        block = gemmi.cif.read_string(lines_before + text[start:end], check_level=0).sole_block()
    except (ValueError, RuntimeError) as error:
        where = re.fullmatch(r"string:(\d+):\d+\(\d+\): (.*)", str(error), flags=re.DOTALL)
        name = text[start:end].split(maxsplit=1)[0][5:]
        return name, f"wrong CIF syntax near line {where[1]}: {where[2]}" if where else f"wrong CIF syntax: {error}"
    return block.name, _tags(block)


def _tags(block: gemmi.cif.Block) -> Tags:
    tags: dict[str, list[str | None]] = {}
    for item in block:
        pair: Any = item.pair
        if pair is not None:
            tags[_standard(pair[0])] = [_value(pair[1])]
        elif item.loop is not None:
            loop = item.loop
            for column, tag in enumerate(loop.tags):
                tags[_standard(tag)] = [_value(loop[row, column]) for row in range(loop.length())]
    return tags


def _standard(tag: str) -> str:
    return tag.lower().replace(".", "_").rstrip("_")


def _value(text: str) -> str | None:
    return None if gemmi.cif.is_null(text) else gemmi.cif.as_string(text).strip()


def cif_sites(tags: Tags | str) -> Sites:
    """All atoms in the cell of a block of `cif_blocks`.

    Raises:
        ValueError: naming the site, its value and the remedy.
    """
    if isinstance(tags, str):
        raise ValueError(tags)
    if first(tags, ["_cell_modulation_dimension", "_cell_wave_vector_seq_id"]):
        raise ValueError("it is an incommensurate structure, which has no cell: give a commensurate supercell")
    lattice = _lattice(tags)
    formula = _formula(tags)
    sites, warnings = _read_sites(tags, formula, lattice)
    candidates = [_expanded(sites, operations, lattice) for operations in settings(tags, lattice)]
    if len(candidates) > 1:
        return _checked_formula(_origin(candidates, tags, formula), formula, warnings)
    return _checked_formula(candidates[0], formula, warnings)


def _lattice(tags: Tags) -> np.ndarray:
    lengths = [_number(tags, f"_cell_length_{name}") for name in "abc"]
    angles = [_number(tags, f"_cell_angle_{name}", 90.0) for name in ("alpha", "beta", "gamma")]
    if min(lengths) <= 0 or min(angles) <= 0 or max(angles) >= 180:
        raise ValueError(f"impossible cell: lengths {lengths} Å, angles {angles}°")
    return Lattice.from_parameters(*lengths, *angles).matrix


def _number(tags: Tags, tag: str, default: float | None = None) -> float:
    text = first(tags, [tag])
    if text is None and default is not None:
        return default
    value = math.nan if text is None else gemmi.cif.as_number(text)
    if not math.isfinite(value):
        raise ValueError(f"{tag} is {text or 'missing'}: give a number")
    return value


def _formula(tags: Tags) -> dict[str, float]:
    """Element -> count of ``_chemical_formula_sum``; empty if there is none that can be read."""
    text = first(tags, ["_chemical_formula_sum"]) or ""
    found: dict[str, float] = {}
    for part in text.split():
        match = re.fullmatch(r"([A-Z][a-z]?)(\d*\.?\d*)", part)
        element = "H" if match and match[1] == "D" else match[1] if match else ""
        if element not in ELEMENTS or match is None:
            return {}
        found[element] = found.get(element, 0) + float(match[2] or 1)
    return found


def _read_sites(tags: Tags, formula: Mapping[str, float], lattice: np.ndarray) -> tuple[list[CifSite], list[str]]:
    symbols = tags.get("_atom_site_type_symbol")
    columns = [tags.get(name) for name in COORDINATES]
    if any(column is None for column in columns):
        raise ValueError(f"{' or '.join(name for name in COORDINATES if name not in tags)} is missing")
    count = len(tags[COORDINATES[0]])
    labels = [label or f"number {i}" for i, label in enumerate(tags.get("_atom_site_label") or symbols or [], start=1)]
    if len(labels) != count:
        raise ValueError("its sites have neither `_atom_site_label` nor `_atom_site_type_symbol`")
    moments, warnings = _moments(tags, lattice), []
    sites = []
    for i, label in enumerate(labels):
        if (tags.get("_atom_site_calc_flag") or [None] * count)[i] == "dum":
            continue
        try:
            shares, warning = _elements(symbols[i] if symbols else None, label, labels, formula)
        except ValueError as error:
            has_hydrogen = any(re.fullmatch("[HD][^a-z]*", text or "") for text in symbols or labels)
            lost = "" if has_hydrogen or "H" not in formula else _no_site(formula["H"], "H", formula)
            raise ValueError(f"{error}. {lost}".rstrip(". ")) from None
        warnings += [warning] if warning else []
        texts = [tags[name][i] for name in COORDINATES]
        occupancy, occupancy_digits = _occupancy((tags.get("_atom_site_occupancy") or [None] * count)[i], label)
        if occupancy == 0:
            continue
        sites.append(
            CifSite(
                label=label,
                place=np.array([_coordinate(text, name, label) for text, name in zip(texts, COORDINATES, strict=True)]),
                digits=max(_digits(str(text)) for text in texts),
                species={element: share * occupancy for element, share in shares.items()},
                occupancy_digits=occupancy_digits,
                moment=moments.get(label),
            )
        )
    attached = sum(int(text) for text in tags.get("_atom_site_attached_hydrogens", ()) if text and text.isdigit())
    if attached:
        warnings.append(f"{attached} H that `_atom_site_attached_hydrogens` counts have no site")
    return sites, list(dict.fromkeys(warnings))


def _elements(
    symbol: str | None, label: str, labels: Sequence[str], formula: Mapping[str, float]
) -> tuple[dict[str, float], str]:
    """Elements and shares of a site, by its type symbol or else its label, and a warning if they are a guess."""
    return (of_symbol(symbol, label, formula), "") if symbol else of_label(label, formula, labels)


def _coordinate(text: str | None, tag: str, label: str) -> float:
    """A coordinate; decimals that are a third or a twelfth, rounded or cut off, are made exact."""
    value = math.nan if text is None else gemmi.cif.as_number(text)
    if text is not None and re.fullmatch(r"-?\d+/\d+", text):
        value = float(Fraction(text))
    if not math.isfinite(value):
        raise ValueError(f"site {label}: {tag} is {text or '? or .'}: give a number, or remove the site")
    digits = _digits(str(text))
    ideal = round(12 * value) / 12
    unit, off = 10.0**-digits, abs(ideal) - abs(value)
    is_rounded = digits >= 3 and round(12 * value) % 3 and -unit / 2 <= off < unit
    return ideal if is_rounded else value


def _digits(text: str) -> int:
    match = re.match(r"[^.]*\.(\d*)", text)
    return len(match[1]) if match else 0


def _occupancy(text: str | None, label: str) -> tuple[float, int]:
    if text is None:
        return 1.0, 0  # the default of the CIF dictionary
    value = gemmi.cif.as_number(text)
    if not (0 <= value <= 1.02):  # also NaN
        raise ValueError(f"site {label}: its occupancy is {text}: give a number from 0 to 1")
    return min(value, 1.0), _digits(text)


def _moments(tags: Tags, lattice: np.ndarray) -> dict[str, np.ndarray]:
    """Label -> moment (3,), μB, Cartesian; the file gives components along the cell vectors, or Cartesian ones."""
    labels = tags.get("_atom_site_moment_label", ())
    unit = lattice / np.linalg.norm(lattice, axis=1)[:, None]
    for names, axes in (("crystalaxis", unit), ("cartn", np.eye(3))):
        columns = [tags.get(f"_atom_site_moment_{names}_{axis}") for axis in "xyz"]
        if all(column is not None for column in columns):
            values = np.array([[gemmi.cif.as_number(text or "0") for text in column or ()] for column in columns]).T
            return dict(zip([str(label) for label in labels], values @ axes, strict=True))
    return {}


def _expanded(sites: Sequence[CifSite], operations: Operations, lattice: np.ndarray) -> Sites:
    """All atoms in the cell; rows at the same place become one site."""
    orbits = [orbit(site.place, operations, lattice, _tolerance(site, lattice)) for site in sites]
    groups = _groups([images for images, _ in orbits], lattice)
    fractional, species, labels, moments = [], [], [], []
    cartesian = lattice.T @ operations.rotations @ np.linalg.inv(lattice.T)
    axial = (operations.reversal * np.linalg.det(operations.rotations))[:, None, None] * cartesian
    for members in groups:
        group, (images, made) = [sites[i] for i in members], orbits[members[0]]
        content = _shared(group)
        if not content:
            continue
        fractional.append(images)
        species += [content] * len(images)
        labels += ["/".join(site.label for site in group)] * len(images)
        moment = group[0].moment if len(group) == 1 and group[0].moment is not None else np.zeros(3)
        moments += [axial[i] @ moment for i in made]
    has_moments = any(site.moment is not None for site in sites)
    keeps = has_moments and (operations.magnetic or len(operations.rotations) == 1)
    lost = "its magnetic moments were not read: it lists no magnetic symmetry operations"
    return Sites(
        lattice=lattice,
        fractional=np.concatenate(fractional) if fractional else np.zeros((0, 3)),
        species=species,
        labels=labels,
        moments=np.array(moments) if keeps else None,
        warnings=(*operations.warnings, *([lost] if has_moments and not keeps else [])),
    )


def _groups(orbits: Sequence[np.ndarray], lattice: np.ndarray) -> list[list[int]]:
    """Indices of the orbits that are at one place, the first of each group in the order of the file."""
    owner = np.repeat(np.arange(len(orbits)), [len(images) for images in orbits])
    root = list(range(len(orbits)))
    if orbits:
        first, second, _ = near_pairs(lattice, np.concatenate(orbits), SAME_PLACE)
        for one, other in sorted(zip(owner[first].tolist(), owner[second].tolist(), strict=True)):
            low, high = sorted((root[one], root[other]))
            root[high] = low
    groups: dict[int, list[int]] = {}
    for i, start in enumerate(root):
        groups.setdefault(start, []).append(i)
    return list(groups.values())


def _tolerance(site: CifSite, lattice: np.ndarray) -> float:
    """Å within which images of a site are one, given the digits of its coordinates."""
    if site.digits < 2 or sum(site.species.values()) <= 0.5:  # two halves of one atom may be close
        return SAME_PLACE
    unit = 10.0**-site.digits * np.linalg.norm(lattice, axis=1).max()
    return float(np.clip(3 * unit, SAME_PLACE, LOOSEST))


def _shared(group: Sequence[CifSite]) -> dict[str, float]:
    """Element -> occupancy of the rows at one place; sums that differ from 1 by rounding are made 1.

    Raises:
        ValueError: they sum to more.
    """
    total = sum(sum(site.species.values()) for site in group)
    digits = [site.occupancy_digits for site in group if site.species]
    rounding = len(digits) * 0.5 * 10.0 ** -min(digits) if len(digits) > 1 and min(digits) > 1 else 0.0
    scale = 1 / total if total > 0 and abs(total - 1) <= rounding + 1e-9 else 1.0
    if total * scale > 1 + 1e-6:
        names = " and ".join(f"{site.label} ({sum(site.species.values()):g})" for site in group)
        raise ValueError(
            f"the occupancies of {names}, which are at one place, sum to {total:.4g}: at most 1 is possible. Correct "
            "them, or remove the atoms that are given twice"
        )
    content: dict[str, float] = {}
    for site in group:
        for element, share in site.species.items():
            content[element] = content.get(element, 0.0) + share * scale
    return content


def _origin(candidates: Sequence[Sites], tags: Tags, formula: Mapping[str, float]) -> Sites:
    """The candidate that is a crystal with the atoms of the formula; the first, with a warning, if several are."""
    stated = first(tags, ["_cell_formula_units_z"])
    fits = []
    for one in candidates:
        units = _units(_held(one), formula)
        is_stated = not formula or not stated or abs(units - gemmi.cif.as_number(stated)) < FORMULA * units
        fits.append((not overlaps(one), not _difference(one, formula), is_stated))
    chosen = fits.index(max(fits))
    if fits.count(max(fits)) == 1:
        return candidates[chosen]
    name = first(tags, NAMES) or "its space group"
    return with_warnings(
        candidates[chosen],
        f"it does not say which origin of {name} it uses: origin {chosen + 1} was taken. "
        f"Write `{name} :1` or `{name} :2`",
    )


def _checked_formula(sites: Sites, formula: Mapping[str, float], warnings: Iterable[str]) -> Sites:
    difference = _difference(sites, formula)
    return with_warnings(sites, *warnings, *([difference] if difference else []))


def _difference(sites: Sites, formula: Mapping[str, float]) -> str:
    """How the atoms differ from ``_chemical_formula_sum``; empty if they do not, or if there is none."""
    if not formula:
        return ""
    held = _held(sites)
    units = _units(held, formula)
    parts = []
    for element in sorted({*formula, *held}):
        wanted, found = formula.get(element, 0.0), held.get(element, 0.0) / units
        if abs(found - wanted) <= FORMULA * max(wanted, found) + 0.005:
            continue
        if found < wanted:
            parts.append(_no_site(wanted - found, element, formula))
        else:
            parts.append(
                f"the sites hold {found - wanted:.4g} {element} more than the file's formula, {_text(formula)}"
            )
    return "; ".join(parts)


def _no_site(count: float, element: str, formula: Mapping[str, float]) -> str:
    return f"{count:.4g} {element} of the file's formula, {_text(formula)}, have no site"


def _text(formula: Mapping[str, float]) -> str:
    return " ".join(f"{element}{count:g}" for element, count in formula.items())


def _held(sites: Sites) -> dict[str, float]:
    """Element -> atoms in the cell."""
    held: dict[str, float] = {}
    for one in sites.species:
        for element, occupancy in one.items():
            held[element] = held.get(element, 0.0) + occupancy
    return held


def _units(held: Mapping[str, float], formula: Mapping[str, float]) -> float:
    """Formula units in the cell: the number on which most elements agree, the largest one if there are several."""
    ratios = [held[element] / count for element, count in formula.items() if element in held and count]
    votes = [sum(abs(one - other) <= FORMULA * other for other in ratios) for one in ratios]
    return max(zip(votes, ratios, strict=True), default=(0, 1.0))[1]
