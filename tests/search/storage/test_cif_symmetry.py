"""Settings of space groups, against spglib's tables and its analysis; magnetic symmetry, against pymatgen's parser."""

from __future__ import annotations

import re
import warnings
from functools import cache

import gemmi
import numpy as np
import pytest
import spglib
from pymatgen.core import Composition
from pymatgen.io.cif import CifParser

from search.storage.cif_symmetry import settings
from search.storage.crystal_files import read_crystal
from tests.support.cifs import cif

HEXAGONAL = np.array([[1.0, 0, 0], [-0.5, 0.75**0.5, 0], [0, 0, 1.7]])
RHOMBOHEDRAL = np.ones((3, 3)) + 2 * np.eye(3)


@cache
def spglib_operations() -> dict[str, set[tuple]]:
    """Hall symbol -> operations, of spglib's 530 settings."""
    tables = {}
    for number in range(1, 531):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of how spglib reports errors
            symbol = spglib.get_spacegroup_type(number).hall_symbol
            found = spglib.get_symmetry_from_database(number)
        tables[symbol.replace("=", '"')] = keys(found["rotations"], found["translations"])
    return tables


def keys(rotations, translations) -> set[tuple]:
    pairs = zip(rotations, translations, strict=True)
    return {(*np.rint(r).astype(int).ravel(), *(np.rint(24 * t).astype(int) % 24)) for r, t in pairs}


def fitting_cell(group: gemmi.SpaceGroup) -> np.ndarray:
    """A cell that every operation of the group leaves as it is."""
    if group.ext == "R":
        return RHOMBOHEDRAL
    if 143 <= group.number <= 194:
        return HEXAGONAL
    return np.eye(3)  # its metric is invariant under the operations of all other groups


def test_every_setting_is_read_by_its_name_and_by_its_hall_symbol() -> None:
    compared = 0
    for group in gemmi.spacegroup_table():
        expected, named = spglib_operations().get(group.hall), gemmi.find_spacegroup_by_name(group.xhm())
        by_name = [{"_space_group_name_h-m_alt": [group.xhm()]}] if named.hall == group.hall else []
        for tags in [{"_space_group_name_hall": [group.hall]}, *by_name] if expected else []:
            (found,) = settings(tags, fitting_cell(group))
            assert keys(found.rotations, found.translations) == expected, group.xhm()
            compared += 1
    assert compared > 900


# Well-known crystals in a setting that the file names without listing its operations.
CUBE = "label type_symbol fract_x fract_y fract_z"
NAMED = [
    ("4.99 4.99 4.99 32.6 32.6 32.6", "R -3 m :R", ["Co Co 0 0 0", "O O .26 .26 .26"], "CoO2", 166),
    ("2.816 2.816 14.05 90 90 120", "R -3 m :H", ["Co Co 0 0 0", "O O 0 0 .26"], "Co3O6", 166),
    ("2.816 2.816 14.05 90 90 120", "R -3 m", ["Co Co 0 0 0", "O O 0 0 .26"], "Co3O6", 166),
    ("4.99 4.99 4.99 32.6 32.6 32.6", "R -3 m", ["Co Co 0 0 0", "O O .26 .26 .26"], "CoO2", 166),
    ("4.99 4.99 4.99 32.6 32.6 32.6", "R-3mR", ["Co Co 0 0 0", "O O .26 .26 .26"], "CoO2", 166),
    ("8.24", "F d -3 m :2", ["Li Li .125 .125 .125", "Mn Mn .5 .5 .5", "O O .2632 .2632 .2632"], "Li8Mn16O32", 227),
    ("8.24", "F d -3 m Z", ["Li Li .125 .125 .125", "Mn Mn .5 .5 .5", "O O .2632 .2632 .2632"], "Li8Mn16O32", 227),
    ("8.24", "F d -3 m :1", ["Li Li 0 0 0", "Mn Mn .625 .625 .625", "O O .3882 .3882 .3882"], "Li8Mn16O32", 227),
    ("8.24", "F d -3 m S", ["Li Li 0 0 0", "Mn Mn .625 .625 .625", "O O .3882 .3882 .3882"], "Li8Mn16O32", 227),
    ("3.785 3.785 9.514 90 90 90", "I 41/a m d :2", ["Ti Ti 0 .75 .125", "O O 0 .25 .0416"], "Ti4O8", 141),
    ("3.785 3.785 9.514 90 90 90", "I 41/a m d :1", ["Ti Ti 0 0 0", "O O 0 0 .2081"], "Ti4O8", 141),
    ("5.43", "Fd-3m:2", ["Si Si .125 .125 .125"], "Si8", 227),
    ("4.69 10.33 6.01 90 90 90", "P m c n", ["Li Li 0 0 0"], "Li4", 0),
    ("5.15 5.2 5.32 90 99.2 90", "P 1 21/c 1", ["Zr Zr .2754 .0395 .2083"], "Zr4", 14),
    ("5.32 5.2 5.15 90 99.2 90", "P 21/a", ["Zr Zr .2083 .0395 .2754"], "Zr4", 14),
    ("3.25 3.25 5.207 90 90 120", "P6_3mc", ["Zn Zn .3333 .6667 0", "O O .3333 .6667 .382"], "Zn2O2", 186),
]


@pytest.mark.parametrize(("cell", "group", "rows", "expected", "number"), NAMED, ids=[one[1] for one in NAMED])
def test_a_named_setting_gives_the_known_crystal(tmp_path, cell, group, rows, expected, number) -> None:
    (tmp_path / "file.cif").write_text(cif(cell, group, rows, columns=CUBE))
    read = read_crystal(tmp_path / "file.cif")
    assert read.crystal.composition == Composition(expected) and not read.warnings
    crystal = read.crystal
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = spglib.get_spacegroup((crystal.lattice, crystal.fractional, crystal.numbers), 1e-3)
    assert number in (0, int(found.split("(")[1][:-1]))


@pytest.mark.parametrize(
    ("group", "rows", "formula", "distance"),
    [
        ("F d -3 m", ["Li Li .125 .125 .125", "Mn Mn .5 .5 .5", "O O .2632 .2632 .2632"], "Li Mn2 O4", 1.96),
        ("F d -3 m", ["Li Li 0 0 0", "Mn Mn .625 .625 .625", "O O .3882 .3882 .3882"], "Li Mn2 O4", 1.96),
        ("Fd-3m", ["Mg Mg .125 .125 .125", "Al Al .5 .5 .5", "O O .2632 .2632 .2632"], "Mg Al2 O4", 1.96),
        ("F D -3 M", ["Mg Mg 0 0 0", "Al Al .625 .625 .625", "O O .3882 .3882 .3882"], "Mg Al2 O4", 1.96),
        ("F d 3 m", ["Zn Zn .125 .125 .125", "Cr Cr .5 .5 .5", "O O .2632 .2632 .2632"], "Zn Cr2 O4", 1.96),
    ],
)
def test_the_origin_that_a_file_does_not_name_is_that_of_its_formula(tmp_path, group, rows, formula, distance) -> None:
    (tmp_path / "file.cif").write_text(cif("8.24", group, rows, columns=CUBE, formula=formula))
    read = read_crystal(tmp_path / "file.cif")
    distances = read.crystal.to_pymatgen().distance_matrix
    assert distances[distances > 0].min() == pytest.approx(distance, abs=0.03) and not read.warnings


def test_an_origin_that_the_formula_does_not_decide_is_said(tmp_path) -> None:
    (tmp_path / "file.cif").write_text(cif("8.24", "F d -3 m", ["Si Si 0 0 0"], columns=CUBE))
    (said,) = read_crystal(tmp_path / "file.cif").warnings
    assert "does not say which origin of F d -3 m" in said and "origin 1 was taken" in said


@pytest.mark.parametrize(
    ("cell", "group", "more", "words"),
    [
        ("5 5 6 90 90 90", "F m -3 m", "", "does not fit the symmetry (F m -3 m)"),
        ("2.8 2.8 14 90 90 120", "R -3 m :R", "", "such as `R -3 m :R`"),
        ("5 5 5 90 90 120", "P m -3 m", "", "(5, 5, 5 Å; 90, 90, 120°) does not fit"),
        ("5", "F m -3 m", "_space_group_IT_number 227", "(number 225), but also number 227"),
        ("5", "F q q q", "", "unknown space group 'F q q q'"),
        ("5", "", "_space_group_name_Hall '-F nonsense'", "unknown Hall symbol"),
        ("5", "", "loop_\n_space_group_symop_operation_xyz\nx,y,q", "unknown symmetry operation 'x,y,q'"),
    ],
)
def test_symmetry_that_cannot_be_is_refused(tmp_path, cell, group, more, words) -> None:
    (tmp_path / "file.cif").write_text(cif(cell, group, ["Si Si 0 0 0"], columns=CUBE, more=more))
    with pytest.raises(ValueError, match=re.escape(words)):
        read_crystal(tmp_path / "file.cif")


@pytest.mark.parametrize(
    ("group", "more", "atoms", "words"),
    [
        ("F m -3 m", "loop_\n_space_group_symop_operation_xyz\nx,y,z", 1, "lists 1 symmetry operations, but F m -3 m"),
        ("", "", 1, "names no space group and no operations"),
        ("F q q q", "_space_group_IT_number 225", 4, "its space group 'F q q q' is unknown: F m -3 m, number 225"),
        ("", "_symmetry_Int_Tables_number 225", 4, ""),
        ("", "_symmetry_equiv_pos_as_xyz 'x,y,z'", 1, ""),
    ],
)
def test_what_a_file_leaves_open_is_said(tmp_path, group, more, atoms, words) -> None:
    (tmp_path / "file.cif").write_text(cif("5", group, ["Si Si 0 0 0"], columns=CUBE, more=more))
    read = read_crystal(tmp_path / "file.cif")
    assert len(read.crystal) == atoms
    assert words in "".join(read.warnings) if words else not read.warnings


@pytest.mark.parametrize(
    "operation", ["x+0.5,y+1/2,z", "1/2+X,1/2+Y,Z", "x+.5, y+.5, z", "+x+1/2,+y+1/2,+z", "'x+1/2 , y+1/2 , z'"]
)
def test_operations_may_be_written_in_many_ways(tmp_path, operation) -> None:
    text = operation if "'" in operation else f"'{operation}'"
    more = f"loop_\n_symmetry_equiv_pos_as_xyz\n'x,y,z'\n{text}"
    (tmp_path / "file.cif").write_text(cif("5", "", ["Si Si 0 0 0"], columns=CUBE, more=more))
    np.testing.assert_allclose(read_crystal(tmp_path / "file.cif").crystal.fractional, [[0, 0, 0], [0.5, 0.5, 0]])


# --- magnetic CIFs ------------------------------------------------------------------------------------------------

MOMENTS = """loop_
_atom_site_moment_label
_atom_site_moment_crystalaxis_x
_atom_site_moment_crystalaxis_y
_atom_site_moment_crystalaxis_z
"""
OPERATIONS = "loop_\n_space_group_symop_magn_operation.id\n_space_group_symop_magn_operation.xyz\n"
CENTRING = "loop_\n_space_group_symop_magn_centering.id\n_space_group_symop_magn_centering.xyz\n"
HEXAGON = "5.1 5.1 13.7 90 90 120"
MAGNETIC = {
    "stripes": (
        "4.17",
        OPERATIONS + "1 x,y,z,+1\n2 -x,-y,-z,+1",
        CENTRING + "1 x,y,z,+1\n2 x+1/2,y+1/2,z,+1\n3 x+1/2,y,z+1/2,-1\n4 x,y+1/2,z+1/2,-1",
        ["Ni1 Ni 0 0 0", "O1 O .5 .5 .5"],
        "Ni1 0 0 2",
        [2, 2, -2, -2, 0, 0, 0, 0],
    ),
    "antiferromagnetic pair": (
        "4 4 6 90 90 90",
        OPERATIONS + "1 x,y,z,+1\n2 x,y,-z,-1",
        "",
        ["Fe1 Fe 0 0 .2", "O1 O .5 .5 0"],
        "Fe1 1.5 0 0",
        [1.5, 1.5, 0],
    ),
    "three moments at 120 degrees": (
        HEXAGON,
        OPERATIONS + "1 x,y,z,+1\n2 -y,x-y,z,+1\n3 -x+y,-x,z,+1",
        "",
        ["Mn1 Mn .5 0 0", "O1 O 0 0 .3"],
        "Mn1 3 0 0",
        None,
    ),
    "group by its number": (
        "4 4 6 90 90 90",
        "_space_group_magn.number_BNS '2.4'\n_space_group_magn.name_BNS \"P-1\"",
        "",
        ["Fe1 Fe .1 .2 .2", "O1 O .5 .5 0"],
        "Fe1 0 0 3",
        [3, 3, 0],
    ),
    "other spelling": (
        "4 4 6 90 90 90",
        "loop_\n_space_group_symop.magn_operation_xyz\nx,y,z,+1\n-x,-y,-z,-1",
        "",
        ["Fe1 Fe .1 .2 .2", "O1 O .5 .5 0"],
        "Fe1 0 0 3",
        [3, -3, 0],
    ),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", MAGNETIC)
def test_magnetic_cifs_keep_cell_and_moments(tmp_path, kind) -> None:
    cell, operations, centring, rows, moment, expected = MAGNETIC[kind]
    text = cif(cell, "", rows, columns=CUBE, more="\n".join([operations, centring, MOMENTS + moment]))
    (tmp_path / "file.mcif").write_text(text)
    read = read_crystal(tmp_path / "file.mcif")
    assert read.moments is not None and not read.warnings
    lengths = [float(length) for length in cell.split()[:3]] if " " in cell else 3 * [float(cell)]
    np.testing.assert_allclose(np.linalg.norm(read.crystal.lattice, axis=1), lengths)
    if expected is not None:
        np.testing.assert_allclose(read.moments, expected, atol=1e-9)
    if "symop_magn" in operations:
        (theirs,) = CifParser.from_str(text).parse_structures(primitive=False)
        vectors = {tuple(np.round(site.frac_coords % 1, 4)): site.properties["magmom"].global_moment for site in theirs}
        for place, mine in zip(read.crystal.fractional, read.moments, strict=True):
            mine = mine if np.ndim(mine) else [0, 0, mine]
            theirs_here = vectors[tuple(np.round(place, 4))]
            assert np.linalg.norm(mine) == pytest.approx(np.linalg.norm(theirs_here))
            if read.moments.ndim == 2:
                np.testing.assert_allclose(mine, theirs_here, atol=1e-6)


def test_moments_without_magnetic_operations_are_not_guessed(tmp_path) -> None:
    text = cif("4.17", "F m -3 m", ["Ni1 Ni 0 0 0", "O1 O .5 .5 .5"], columns=CUBE, more=MOMENTS + "Ni1 0 0 2")
    (tmp_path / "file.mcif").write_text(text)
    read = read_crystal(tmp_path / "file.mcif")
    assert read.moments is None and "lists no magnetic symmetry operations" in read.warnings[0]


def test_incommensurate_structures_are_refused(tmp_path) -> None:
    text = cif("4", "P 1", ["Ni1 Ni 0 0 0"], columns=CUBE, more="_cell_modulation_dimension 1")
    (tmp_path / "file.mcif").write_text(text)
    with pytest.raises(ValueError, match="incommensurate"):
        read_crystal(tmp_path / "file.mcif")
