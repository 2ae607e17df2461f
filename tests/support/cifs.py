"""CIFs written out for tests, as people have them."""

from __future__ import annotations

from collections.abc import Sequence

TABLE = "label type_symbol fract_x fract_y fract_z occupancy"


def cif(
    cell: str,
    group: str,
    rows: Sequence[str],
    *,
    columns: str = TABLE,
    formula: str = "",
    name: str = "test",
    more: str = "",
) -> str:
    """A CIF block.

    Args:
        cell: ``a b c alpha beta gamma``, or only ``a`` of a cubic cell.
        group: Hermann-Mauguin symbol; empty for none.
        rows: of the atom sites.
        columns: their tags, without ``_atom_site_``.
        formula: ``_chemical_formula_sum``.
        name: of the block.
        more: further lines, such as symmetry operations.
    """
    numbers = cell.split()
    numbers = numbers if len(numbers) == 6 else numbers * 3 + ["90"] * 3
    names = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
    lines = [f"data_{name}", *(f"_cell_{key} {value}" for key, value in zip(names, numbers, strict=True))]
    lines += [f"_space_group_name_H-M_alt '{group}'"] if group else []
    lines += [f"_chemical_formula_sum '{formula}'"] if formula else []
    lines += [more] if more else []
    lines += ["loop_", *(f"_atom_site_{column}" for column in columns.split()), *rows]
    return "\n".join(lines) + "\n"
