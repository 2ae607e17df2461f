"""Symmetry operations of a CIF, and the atoms that they make of its sites.

The tables of space groups in all their settings are those of gemmi; magnetic groups are pymatgen's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import gemmi
import numpy as np
from pymatgen.symmetry.maggroups import MagneticSpaceGroup

Tags = Mapping[str, Sequence[str | None]]  # tag in lower case with _ for . -> its values; None for . and ?
LISTED = ("_symmetry_equiv_pos_as_xyz", "_space_group_symop_operation_xyz")
HALL = ("_symmetry_space_group_name_hall", "_space_group_name_hall")
NAMES = (
    "_symmetry_space_group_name_h-m",
    "_symmetry_space_group_name_h_m",
    "_space_group_name_h-m_alt",
    "_space_group_name_h-m_full",
    "_space_group_name_h-m",
)
NUMBERS = ("_space_group_it_number", "_symmetry_int_tables_number")
MAGNETIC = "_space_group_symop_magn_operation_xyz"
MAGNETIC_CENTERING = "_space_group_symop_magn_centering_xyz"
MISFIT = 0.02  # by which an operation may change the squares of lengths, relative to the longest
LIST = "List the operations in `_space_group_symop_operation_xyz`"


@dataclass(frozen=True, eq=False, kw_only=True)
class Operations:
    """Operations x' = R x + t of a space group.

    Attributes:
        rotations: (m, 3, 3), in fractional coordinates.
        translations: (m, 3).
        reversal: (m,) 1, or -1 where the operation reverses time, and so the moments.
        name: of the setting, for messages.
        magnetic: whether the reversals are those of a magnetic group.
        warnings: doubts.
    """

    rotations: np.ndarray
    translations: np.ndarray
    reversal: np.ndarray
    name: str
    magnetic: bool = False
    warnings: tuple[str, ...] = ()


def first(tags: Tags, names: Sequence[str]) -> str | None:
    """The first value that a CIF gives for one of these tags."""
    return next((value for name in names for value in tags.get(name, ()) if value), None)


def settings(tags: Tags, lattice: np.ndarray) -> list[Operations]:
    """The operations of a CIF: one set, or one per origin if the file does not say which one it uses.

    Args:
        tags: of the block.
        lattice: (3, 3) Å; decides between hexagonal and rhombohedral axes.

    Raises:
        ValueError: an unknown operation or space group, or one that does not fit the cell.
    """
    found = [_magnetic(tags)] if _is_magnetic(tags) else _listed(tags) or _named(tags, lattice)
    for one in found:
        _require_fit(one, lattice)
    return found


def _listed(tags: Tags) -> list[Operations]:
    texts = [text for name in LISTED for text in tags.get(name, ()) if text]
    if not texts:
        return []
    operations = _operations([(text, 1) for text in texts], "operations of the file")
    group = gemmi.find_spacegroup_by_name(_plain(first(tags, NAMES) or "")[0])
    if group is None or len(group.operations()) == len(operations.rotations):
        return [operations]
    warning = (
        f"it lists {len(operations.rotations)} symmetry operations, but {group.hm} has {len(group.operations())}: "
        "those listed were used"
    )
    return [replace(operations, warnings=(warning,))]


def _named(tags: Tags, lattice: np.ndarray) -> list[Operations]:
    hall, name, number = first(tags, HALL), first(tags, NAMES), first(tags, NUMBERS)
    if hall:
        try:
            return [_of_group_operations(gemmi.symops_from_hall(hall), f"Hall symbol {hall}")]
        except (ValueError, RuntimeError):
            if not name:
                raise ValueError(f"unknown Hall symbol {hall!r}. {LIST}") from None
    if not name and not number:
        warning = "it names no space group and no operations: it was read as P 1"
        return [replace(_operations([("x,y,z", 1)], "P 1"), warnings=(warning,))]
    text, origin = _plain(name or "")
    angles = _angles(lattice)
    group = gemmi.find_spacegroup_by_name(text, angles[0], angles[2]) if name else None
    if group and number and number.isdigit() and int(number) != group.number:
        raise ValueError(f"its space group is {name!r} (number {group.number}), but also number {number}. {LIST}")
    if group is None and number and number.isdigit() and 1 <= int(number) <= 230:
        group = gemmi.find_spacegroup_by_number(int(number))
        group = gemmi.find_spacegroup_by_name(group.hm, angles[0], angles[2])
        warnings = (f"its space group {name!r} is unknown: {group.xhm()}, number {number}, was used",) if name else ()
        return [replace(one, warnings=warnings) for one in _origins(group, "")]
    if group is None:
        raise ValueError(f"unknown space group {name or number!r}. {LIST}")
    return _origins(group, origin)


def _plain(name: str) -> tuple[str, str]:
    """The name of a space group as gemmi spells it, and its origin choice if it names one: ``F d -3 m Z`` is 2."""
    text = re.sub(r"\s*:\s*", ":", name.replace("_", "")).strip()
    for ending, origin in (("S", "1"), ("Z", "2")):
        if text.endswith(ending):
            return f"{text[:-1].strip(' :')}:{origin}", origin
    origin = text[-1] if text[-2:] in (":1", ":2") else ""
    return text, origin


def _origins(group: gemmi.SpaceGroup, origin: str) -> list[Operations]:
    """The operations of a group; those of both its origins if the file names neither."""
    if group.ext in ("1", "2") and not origin:
        both = [gemmi.find_spacegroup_by_name(f"{group.hm}:{choice}") for choice in "12"]
        return [_of_group_operations(one.operations(), one.xhm()) for one in both]
    return [_of_group_operations(group.operations(), group.xhm())]


def _is_magnetic(tags: Tags) -> bool:
    return any(first(tags, [tag]) for tag in (MAGNETIC, "_space_group_magn_number_bns", "_space_group_magn_name_bns"))


def _magnetic(tags: Tags) -> Operations:
    """Operations of a magnetic CIF: those listed, times the centring translations, or those of its group."""
    texts = [text for text in tags.get(MAGNETIC, ()) if text]
    if not texts:
        return _of_magnetic_group(tags)
    some = _operations([_with_reversal(text) for text in texts], "magnetic operations of the file", magnetic=True)
    centring = [text for text in tags.get(MAGNETIC_CENTERING, ()) if text] or ["x,y,z,+1"]
    more = _operations([_with_reversal(text) for text in centring], "", magnetic=True)
    pairs = [(i, j) for j in range(len(more.rotations)) for i in range(len(some.rotations))]
    return _distinct(
        rotations=np.array([some.rotations[i] for i, _ in pairs]),
        translations=np.array([some.translations[i] + more.translations[j] for i, j in pairs]),
        reversal=np.array([some.reversal[i] * more.reversal[j] for i, j in pairs]),
        name=some.name,
        magnetic=True,
    )


def _of_magnetic_group(tags: Tags) -> Operations:
    name, number = first(tags, ["_space_group_magn_name_bns"]), first(tags, ["_space_group_magn_number_bns"])
    change = first(
        tags, ["_space_group_magn_transform_bns_pp_abc", "_magnetic_space_group_transform_to_standard_pp_abc"]
    )
    label = name or [int(part) for part in str(number).split(".")]
    try:
        group = MagneticSpaceGroup(label, change or "a,b,c;0,0,0")
    except Exception as error:  # pymatgen raises whatever its database raises
        tag = MAGNETIC.replace("operation_xyz", "operation.xyz")
        raise ValueError(f"unknown magnetic space group {label}. List its operations in `{tag}`") from error
    operations = group.symmetry_ops
    return _distinct(
        rotations=np.array([one.rotation_matrix for one in operations]),
        translations=np.array([one.translation_vector for one in operations]),
        reversal=np.array([one.time_reversal for one in operations]),
        name=str(label),
        magnetic=True,
    )


def _with_reversal(text: str) -> tuple[str, int]:
    """An operation ``x,y,z,+1``, split into its part in space and the reversal of time."""
    *space, reversal = text.split(",")
    if len(space) != 3 or reversal.strip() not in {"1", "+1", "-1"}:
        raise ValueError(f"unknown magnetic operation {text!r}: write it like -x,y,z,-1")
    return ",".join(space), int(reversal)


def _operations(texts: Sequence[tuple[str, int]], name: str, *, magnetic: bool = False) -> Operations:
    parsed = []
    for text, _ in texts:
        try:
            parsed.append(gemmi.Op(text))
        except (ValueError, RuntimeError):
            raise ValueError(f"unknown symmetry operation {text!r}: write it like -x,y+1/2,z") from None
    return _distinct(
        rotations=np.array([one.rot for one in parsed]) / gemmi.Op.DEN,
        translations=np.array([one.tran for one in parsed]) / gemmi.Op.DEN,
        reversal=np.array([reversal for _, reversal in texts]),
        name=name,
        magnetic=magnetic,
    )


def _of_group_operations(group: gemmi.GroupOps, name: str) -> Operations:
    every = list(group)
    return Operations(
        rotations=np.array([one.rot for one in every]) / gemmi.Op.DEN,
        translations=np.array([one.tran for one in every]) / gemmi.Op.DEN,
        reversal=np.ones(len(every), dtype=int),
        name=name,
    )


def _distinct(
    *, rotations: np.ndarray, translations: np.ndarray, reversal: np.ndarray, name: str, magnetic: bool
) -> Operations:
    """The operations without repeats."""
    seen: dict[tuple, int] = {}
    for i, (rotation, translation, sign) in enumerate(zip(rotations, translations, reversal, strict=True)):
        key = (*np.rint(rotation).astype(int).ravel(), *(np.rint(48 * translation).astype(int) % 48), int(sign))
        seen.setdefault(key, i)
    kept = list(seen.values())
    return Operations(
        rotations=rotations[kept],
        translations=translations[kept],
        reversal=reversal[kept],
        name=name,
        magnetic=magnetic,
    )


def orbit(
    place: np.ndarray, operations: Operations, lattice: np.ndarray, tolerance: float
) -> tuple[np.ndarray, list[int]]:
    """All images of a place, which is first moved onto the special position that it is meant to be on.

    Images closer than ``tolerance`` are one place; the mean of those near the original is invariant.

    Args:
        place: (3,) fractional.
        operations: of the group.
        lattice: (3, 3) Å.
        tolerance: Å.

    Returns:
        (k, 3) fractional coordinates in [0, 1), the original first, and for each the operation that makes it.
    """
    steps = _nearest(operations.rotations @ place + operations.translations - place)
    here = np.linalg.norm(steps @ lattice, axis=1) < tolerance
    special = place + steps[here].mean(axis=0)
    images = operations.rotations @ special + operations.translations
    made = [int(np.flatnonzero(here)[0])]
    for i, image in enumerate(images):
        if (np.linalg.norm(_nearest(image - images[made]) @ lattice, axis=1) >= tolerance).all():
            made.append(i)
    found = images[made]
    return np.where(found % 1 > 1 - 1e-9, 0.0, found % 1), made


def _nearest(steps: np.ndarray) -> np.ndarray:
    return steps - np.rint(steps)


def _require_fit(operations: Operations, lattice: np.ndarray) -> None:
    """Raise ValueError if an operation distorts the cell: it belongs to other axes."""
    metric = lattice @ lattice.T
    turned = np.einsum("mji,jk,mkl->mil", operations.rotations, metric, operations.rotations)
    if np.abs(turned - metric).max() > MISFIT * np.abs(metric).max():
        lengths = ", ".join(f"{length:.4g}" for length in np.linalg.norm(lattice, axis=1))
        angles = ", ".join(f"{angle:.4g}" for angle in _angles(lattice))
        raise ValueError(
            f"the cell ({lengths} Å; {angles}°) does not fit the symmetry ({operations.name}): correct the cell, or "
            "name the setting of the space group, such as `R -3 m :R` for rhombohedral axes"
        )


def _angles(lattice: np.ndarray) -> list[float]:
    """α, β, γ in degrees."""
    unit = lattice / np.linalg.norm(lattice, axis=1)[:, None]
    return [float(np.degrees(np.arccos(unit[i] @ unit[j]))) for i, j in ((1, 2), (0, 2), (0, 1))]
