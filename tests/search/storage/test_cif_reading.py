"""CIFs as people have them: each becomes the right crystal, or is refused with the site, its value and the remedy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Composition

from search.storage.crystal_files import read_crystal, read_files, read_structure
from tests.support.cifs import cif

FILES = Path(__file__).parents[2] / "data" / "users_files"
ROCKSALT = "5.13", "F m -3 m"
BARE = "label fract_x fract_y fract_z"


@pytest.fixture
def write(tmp_path):
    """A function that writes a text, or bytes, to a CIF."""

    def written(content: str | bytes, name: str = "file.cif") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return written


def content(path: Path) -> dict[str, float]:
    """Atoms in the cell, which may be partially occupied."""
    return read_structure(path).structure.composition.get_el_amt_dict()


def atoms(formula: str) -> dict[str, float]:
    return Composition(formula).get_el_amt_dict()


def refusal(path: Path) -> str:
    with pytest.raises(ValueError, match=path.name) as error:
        read_structure(path)
    return str(error.value)


# --- files of users -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("brucite-without-H.cif", "MgO2"),
        ("SrVO2H-shared-site.cif", "Sr1 V1 O2.0001 H0.9999"),
        ("ZnO-three-digits.cif", "Zn2O2"),
        ("LiCl-Vac.cif", "Li2Cl4"),
        ("MgO-occupancy-dot.cif", "Mg4O4"),
        ("byte-order-mark.cif", "Na4Cl4"),
        ("LiMn2O4-mixed-valence.cif", "Li2Mn4O8"),
        ("NiO-antiferromagnetic.mcif", "Ni4O4"),
        ("POSCAR-without-names", "Mg4O4"),
        ("POSCAR-LiCl-selective-dynamics", "Li4Cl4"),
        ("three-blocks-one-broken.cif", "Na4Cl4"),
    ],
)
def test_files_of_users_are_read_as_what_they_are(name, expected) -> None:
    assert content(FILES / name) == pytest.approx(atoms(expected), abs=1e-3)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("brucite-label-OH.cif", ["site OH", "2 H of the file's formula", "no site", "_atom_site_type_symbol"]),
        ("LiCl-hydrate-Wat.cif", ["site Wat1", "'Wat' is not an element", "6 H of the file's formula", "no site"]),
        ("label-T1.cif", ["site T1", "not an element"]),
        ("atomic-number-as-occupancy.cif", ["site Mg1", "occupancy is 4"]),
    ],
)
def test_files_of_users_that_are_no_crystals_are_refused_with_site_and_value(name, words) -> None:
    text = refusal(FILES / name)
    assert all(word in text for word in [name, *words]), text


# --- elements: type symbols, labels, and the formula ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("symbol", "element"),
    [("Fe3+", "Fe"), ("Fe+3", "Fe"), ("FE", "Fe"), ("O2-", "O"), ("Li0+", "Li"), ("D", "H"), ("Fe2.5+", "Fe")],
)
def test_a_type_symbol_may_have_a_charge(write, symbol, element) -> None:
    path = write(cif(*ROCKSALT, [f"a {symbol} 0 0 0 1", "b Cl .5 .5 .5 1"]))
    assert content(path) == {element: 4, "Cl": 4}


@pytest.mark.parametrize("symbol", ["Wat", "OH", "H2O", "NH4", "X", "M", "T", "Lv1Z", "Fe/Mn", "O-H", "Q"])
def test_a_type_symbol_that_is_no_element_is_refused_by_name(write, symbol) -> None:
    text = refusal(write(cif(*ROCKSALT, ["Li1 Li 0 0 0 1", f"s2 {symbol} .5 .5 .5 1"])))
    assert f"site s2: '{symbol}' is not an element" in text


@pytest.mark.parametrize(
    ("label", "formula", "element"),
    [
        ("Fe1", "", "Fe"),
        ("FE12", "", "Fe"),
        ("O", "", "O"),
        ("Na1A", "", "Na"),
        ("O(1)", "", "O"),
        ("HO1", "H Cl O", "H"),
        ("OA2", "O Cl", "O"),
        ("Ow1", "O Cl", "O"),
        ("CO1", "Co Cl", "Co"),
        ("NaA", "Na Cl", "Na"),
    ],
)
def test_a_label_without_a_type_symbol_names_its_element(write, label, formula, element) -> None:
    path = write(cif(*ROCKSALT, [f"{label} 0 0 0", "Cl9 .5 .5 .5"], columns=BARE, formula=formula))
    assert content(path) == {element: 4, "Cl": 4}


@pytest.mark.parametrize(
    ("label", "formula"),
    [
        ("T1", "Si Cl"),
        ("M2", ""),
        ("Me1", "Fe Cl"),
        ("Wat", "O Cl H2"),
        ("OH", "O H Cl"),
        ("Si/Al1", "Si Al Cl"),
        ("SiAl1", "Si Al Cl"),
        ("NaK", "Na K Cl"),
        ("X", ""),
        ("1", ""),
        ("Ow1", ""),
        ("A1", "Ca Cl"),
    ],
)
def test_a_label_that_names_no_element_is_refused_by_name(write, label, formula) -> None:
    path = write(cif(*ROCKSALT, [f"{label} 0 0 0", "Cl9 .5 .5 .5"], columns=BARE, formula=formula))
    assert f"site {label}: this label is not an element" in refusal(path)


def test_a_label_of_a_group_is_an_atom_if_the_others_have_sites(write) -> None:
    rows = ["Mg 0 0 0", "OH 0.33333 0.66667 0.22", "H 0.33333 0.66667 0.42"]
    path = write(cif("3.142 3.142 4.766 90 90 120", "P -3 m 1", rows, columns=BARE, formula="Mg O2 H2"))
    assert content(path) == atoms("MgO2H2")
    assert read_structure(path).warnings == ("site OH was read as O: it has no `_atom_site_type_symbol`",)


@pytest.mark.parametrize("symbol", ["Vac", "Va", "vac", "VA", "vacancy"])
def test_a_vacancy_is_no_atom(write, symbol) -> None:
    rows = ["a Li 0 0 0 0.5", f"b {symbol} 0 0 0 0.5", "c Cl .5 .5 .5 1"]
    assert content(write(cif(*ROCKSALT, rows))) == atoms("Li2Cl4")


@pytest.mark.parametrize(
    ("formula", "words"),
    [
        ("Li Cl H2 O", "2 H of the file's formula, Li1 Cl1 H2 O1, have no site; 1 O of the file's formula"),
        ("Li2 Cl", "1 Li of the file's formula, Li2 Cl1, have no site"),
        ("Li4 Cl4 D4", "4 H of the file's formula"),
        ("Cl", "the sites hold 1 Li more than the file's formula, Cl1"),
        ("Li Na Cl", "1 Na of the file's formula"),
        ("Li4 Cl4", ""),
        ("Cl Li", ""),
        ("Li0.99 Cl1.01", ""),
        ("C-12 (unreadable)", ""),
    ],
)
def test_atoms_of_the_formula_without_a_site_are_said(write, formula, words) -> None:
    read = read_crystal(write(cif(*ROCKSALT, ["a Li 0 0 0 1", "b Cl .5 .5 .5 1"], formula=formula)))
    assert words in "".join(read.warnings) if words else not read.warnings
    assert read.crystal.composition == Composition("Li4Cl4")


def test_hydrogens_that_are_only_counted_are_said(write) -> None:
    rows = ["a Li 0 0 0 1 0", "b O .5 .5 .5 1 1"]
    path = write(cif(*ROCKSALT, rows, columns="label type_symbol fract_x fract_y fract_z occupancy attached_hydrogens"))
    assert read_crystal(path).warnings == ("1 H that `_atom_site_attached_hydrogens` counts have no site",)


# --- occupancies --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("occupancy", [".", "?", "1.", "1.0000(3)", "1.002"])
def test_an_occupancy_that_is_not_given_or_is_one_is_one(write, occupancy) -> None:
    path = write(cif(*ROCKSALT, ["a Mg 0 0 0 1", f"b O .5 .5 .5 {occupancy}"]))
    assert read_crystal(path).crystal.composition == Composition("Mg4O4")


@pytest.mark.parametrize("occupancy", ["4", "12", "-0.5", "full", "1.5"])
def test_an_impossible_occupancy_is_refused_with_its_site(write, occupancy) -> None:
    text = refusal(write(cif(*ROCKSALT, ["Mg1 Mg 0 0 0 1", f"O1 O .5 .5 .5 {occupancy}"])))
    assert f"site O1: its occupancy is {occupancy}: give a number from 0 to 1" in text


@pytest.mark.parametrize(
    "shares", [(0.667, 0.334), (0.333, 0.666), (0.33, 0.33, 0.33), (0.34, 0.33, 0.34), (0.6667, 0.3334)]
)
def test_occupancies_whose_sum_is_rounded_fill_the_site(write, shares) -> None:
    elements = ["Mg", "Ni", "Co"]
    rows = [f"{element}1 {element} 0 0 0 {share}" for element, share in zip(elements, shares, strict=False)]
    read = read_structure(write(cif(*ROCKSALT, [*rows, "O1 O .5 .5 .5 1"])))
    filled = sum(read.structure.composition[element] for element in elements)
    assert filled == pytest.approx(4, abs=1e-9) and not read.warnings


@pytest.mark.parametrize("shares", [(0.7, 0.7), (1, 1), (0.667, 0.35), (0.5, 0.52), (1, 0.1)])
def test_occupancies_that_cannot_be_are_refused_with_their_sites(write, shares) -> None:
    rows = [f"Mg1 Mg 0 0 0 {shares[0]}", f"Ni1 Ni 0 0 0 {shares[1]}", "O1 O .5 .5 .5 1"]
    text = refusal(write(cif(*ROCKSALT, rows)))
    assert f"Mg1 ({shares[0]:g}) and Ni1 ({shares[1]:g})" in text and f"sum to {sum(shares):.4g}" in text


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (["a O .5 .5 .5 0.6667", "b H .5 .5 .5 0.3333"], {"O": 2.6667, "H": 1.3333}),
        (["a H .5 .5 .5 0.5", "b O .5 .5 .5 0.5"], {"O": 2, "H": 2}),
        (["a O2- .5 .5 .5 0.5", "b H1- .5 .5 .5 0.25"], {"O": 2, "H": 1}),
        (["a F .5 .5 .5 0.75", "b H .5 .5 .5 0.25"], {"F": 3, "H": 1}),
        (["a O .5 .5 .5 0.5", "b D .5 .5 .5 0.5"], {"O": 2, "H": 2}),
        (["a O .5 .5 .5 0.4", "b H .5 .5 .5 0.3", "c F .5 .5 .5 0.3"], {"O": 1.6, "H": 1.2, "F": 1.2}),
    ],
)
def test_hydrogen_on_a_shared_site_is_kept(write, rows, expected) -> None:
    path = write(cif(*ROCKSALT, ["m Li 0 0 0 1", *rows]))
    assert content(path) == pytest.approx({"Li": 4, **expected}, abs=1e-3)


@pytest.mark.parametrize(
    ("rows", "formula"),
    [
        (["a Mn3+ 0 0 0 0.5", "b Mn4+ 0 0 0 0.5"], "Mn4O4"),
        (["a Fe2+ 0 0 0 0.333", "b Fe3+ 0 0 0 0.667"], "Fe4O4"),
        (["a V3+ 0 0 0 .3", "b V4+ 0 0 0 .3", "c V5+ 0 0 0 .4"], "V4O4"),
        (["a Co+2 0 0 0 0.25", "b Co+3 0 0 0 0.75"], "Co4O4"),
        (["a Sn 0 0 0 0.5", "b Sn4+ 0 0 0 0.5"], "Sn4O4"),
    ],
)
def test_mixed_valence_on_a_full_site_is_no_disorder(write, rows, formula) -> None:
    path = write(cif(*ROCKSALT, [*rows, "o O .5 .5 .5 1"]))
    assert read_crystal(path).crystal.composition == Composition(formula)


def test_partial_occupancy_is_refused_with_sites_and_remedy(write) -> None:
    path = write(cif(*ROCKSALT, ["a Fe2+ 0 0 0 0.5", "b Fe3+ 0 0 0 0.25", "o O .5 .5 .5 1"]))
    with pytest.raises(ValueError, match=r"Fe:0\.75 at \[0\.0, 0\.0, 0\.0\].* and 1 more.*hostguide inpaint FILE"):
        read_crystal(path)
    assert content(path) == {"Fe": 3, "O": 4}


def test_a_mixture_in_one_type_symbol_is_read(write) -> None:
    path = write(cif(*ROCKSALT, ["Nb,Zr '0.8Nb + 0.2Zr' 0 0 0 1", "o O .5 .5 .5 1"]))
    assert content(path) == pytest.approx({"Nb": 3.2, "Zr": 0.8, "O": 4})


# --- coordinates --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "group", "rows", "expected"),
    [
        ("3.19 3.19 5.19 90 90 120", "P 63 m c", ["a Ga .333 .667 0 1", "b N .333 .667 .377 1"], "Ga2N2"),
        ("4.14 4.14 6.72 90 90 120", "P 63 m c", ["a Cd .33 .67 0 1", "b S .33 .67 .38 1"], "Cd2S2"),
        ("2.46 2.46 6.70 90 90 120", "P 63/m m c", ["a C 0 0 .25 1", "b C .333 .666 .25 1"], "C4"),
        ("3.14 3.14 4.77 90 90 120", "P -3 m 1", ["a Cd 0 0 0 1", "b I .334 .667 .25 1"], "CdI2"),
        ("2.95 2.95 4.68 90 90 120", "P 63/m m c", ["a Mg .333 .667 .25 1"], "Mg2"),
        ("3.25 3.25 5.2 90 90 120", "P 63 m c", ["a Zn 1/3 2/3 0 1", "b O 1/3 2/3 .38 1"], "Zn2O2"),
        ("5.43", "F d -3 m :2", ["a Si .13 .13 .12 1"], "Si8"),
    ],
)
def test_coordinates_of_few_digits_stay_on_their_special_position(write, cell, group, rows, expected) -> None:
    crystal = read_crystal(write(cif(cell, group, rows))).crystal
    assert crystal.composition == Composition(expected)


def test_thirds_become_exact_and_other_coordinates_stay(write) -> None:
    rows = ["a Zn 0.333 0.6667 0.66 1", "b O 0.33333333 0.8333 0.9 1", "c S 0.334 0.1235 0.125 1"]
    crystal = read_crystal(write(cif("9", "P 1", rows))).crystal
    expected = [[1 / 3, 2 / 3, 0.66], [1 / 3, 5 / 6, 0.9], [0.334, 0.1235, 0.125]]
    np.testing.assert_allclose(crystal.fractional, expected, atol=1e-15)


@pytest.mark.parametrize("value", ["?", ".", "half", "0.5.5", "NaN"])
def test_a_coordinate_that_is_no_number_is_refused_with_its_site(write, value) -> None:
    text = refusal(write(cif(*ROCKSALT, ["Li1 Li 0 0 0 1", f"Cl1 Cl .5 .5 {value} 1"])))
    assert "site Cl1: _atom_site_fract_z is" in text and "give a number" in text


@pytest.mark.parametrize(
    ("cell", "group", "rows", "words"),
    [
        ("5.13", "P 1", ["a Li 0 0 0 1", "b Cl 0.02 0 0 1"], "a and b are 0.103 Å apart"),
        ("5.13", "F m -3 m", ["a Li 0 0 0 1", "b Li 0 .5 .5 1"], "a (1) and b (1), which are at one place, sum to 2"),
        ("0.513", "F m -3 m", ["a Li 0 0 0 1", "b Cl .5 .5 .5 1"], "volume of 0.135 Å³"),
        ("5.13", "P -1", ["a Li .03 0 0 1", "b Cl .5 .5 .5 1"], "a and a are 0.308 Å apart"),
        ("5.13", "P 1", ["a Li 0 0 0 1", "b Cl 0.99 0 0 0.5"], "a and b are 0.051 Å apart"),
    ],
)
def test_atoms_on_top_of_each_other_are_refused_with_sites_and_distance(write, cell, group, rows, words) -> None:
    assert words in refusal(write(cif(cell, group, rows)))


def test_two_parts_of_one_atom_may_be_close(write) -> None:
    path = write(cif("5.13", "P -1", ["a Li .03 0 0 0.5", "b Cl .5 .5 .5 1"]))
    assert content(path) == {"Li": 1, "Cl": 1}


# --- files --------------------------------------------------------------------------------------------------------

SALT = cif(*ROCKSALT, ["Li1 Li 0 0 0 1", "Cl1 Cl .5 .5 .5 1"])


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + SALT.encode(),
        SALT.encode("utf-16"),
        SALT.replace("\n", "\r\n").encode(),
        ("# Å, °, é\n" + SALT + "_publ_author_name Müller\n").encode(),
        ("# \xc5\n" + SALT).encode("latin-1"),
        SALT.replace("_cell", "_CELL").replace("_atom_site_fract_", "_atom_site.fract_").encode(),
    ],
    ids=["byte-order mark", "UTF-16", "Windows", "UTF-8", "Latin-1", "other tags"],
)
def test_encodings_and_spellings_of_a_file_do_not_matter(write, content) -> None:
    assert read_crystal(write(content)).crystal.composition == Composition("Li4Cl4")


BROKEN = {
    "no number": cif(*ROCKSALT, ["Na1 Na 0 0 0 1", "Cl1 Cl .5 .5 ? 1"], name="bad"),
    "loop": cif(*ROCKSALT, ["Na1 Na 0 0 0 1", "Cl1 Cl .5 .5"], name="bad"),
    "quotes": cif(*ROCKSALT, ["Na1 Na 0 0 0 1"], name="bad", more="_symmetry_space_group_name_H-M F m -3 m"),
    "element": cif(*ROCKSALT, ["Na1 Xx 0 0 0 1"], name="bad"),
    "cell": cif("5.1 5.1 -5.1 90 90 90", "P 1", ["Na1 Na 0 0 0 1"], name="bad"),
    "group": cif("5.1", "F m m 3 q", ["Na1 Na 0 0 0 1"], name="bad"),
    "overlap": cif("5.1", "P 1", ["Na1 Na 0 0 0 1", "Na2 Na 0 0 0.01 1"], name="bad"),
    "partial": cif("5.1", "P 1", ["Na1 Na 0 0 0 0.5"], name="bad"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_block_that_cannot_be_read_is_named_and_the_others_are_read(write, kind) -> None:
    third = cif("4.12", "P m -3 m", ["a Cs 0 0 0 1", "b Cl .5 .5 .5 1"], name="third")
    path = write("\n".join([SALT, BROKEN[kind], third]))
    found = read_files([path])
    assert [(one.name, one.crystal.formula) for one in found.crystals] == [("file-1", "LiCl"), ("file-3", "CsCl")]
    (unreadable,) = found.unreadable
    assert unreadable.name == "file-2" and unreadable.problem.startswith("block data_bad: ")
    first = read_crystal(path)
    assert first.crystal.formula == "LiCl"
    assert first.warnings[0] == "it has 3 crystals; block data_test was taken"
    assert first.warnings[1].startswith("block data_bad: not read: ")


def test_a_syntax_error_is_given_with_its_line(write) -> None:
    (unreadable,) = read_files([write(SALT + BROKEN["quotes"])]).unreadable
    line = (SALT + BROKEN["quotes"]).splitlines().index("_symmetry_space_group_name_H-M F m -3 m") + 1
    assert f"near line {line}" in unreadable.problem


def test_blocks_of_one_name_are_both_read_and_blocks_without_a_crystal_are_passed_over(write) -> None:
    other = cif("4.12", "P m -3 m", ["a Cs 0 0 0 1", "b Cl .5 .5 .5 1"])
    found = read_files([write("data_global\n_journal_year 1999\n" + SALT + other)])
    assert [one.crystal.formula for one in found.crystals] == ["LiCl", "CsCl"] and not found.unreadable


@pytest.mark.parametrize("text", ["", "hello", "data_x\n_cell_length_a 5\n", "loop_\n_a\n"])
def test_a_file_without_a_crystal_is_refused(write, text) -> None:
    assert "no block has `_atom_site_fract_x`" in refusal(write(text))


def test_all_problems_of_all_files_are_named(write) -> None:
    paths = [write(BROKEN["element"], "one.cif"), write(SALT, "two.cif"), write("", "three.cif")]
    with pytest.raises(ValueError, match=r"one\.cif: site Na1.*\n.*three\.cif: it contains no crystal"):
        read_files(paths)
