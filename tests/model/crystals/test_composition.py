import numpy as np
import pytest

from model.crystals.composition import (
    CellFormula,
    can_be_neutral,
    from_formulas,
    from_system,
    from_terminals,
    has_stoichiometry,
    on_steps,
    parse_system,
    smallest_formulas,
    usual_valences,
)


def test_a_cell_formula_knows_its_units():
    cell = CellFormula.parse("Si4Li10")
    assert cell.as_dict == {"Li": 10, "Si": 4}
    assert (cell.n_atoms, cell.reduced, cell.z, str(cell)) == (14, "Li5Si2", 2, "Li10Si4")
    assert cell.numbers.tolist() == [3] * 10 + [14] * 4
    assert cell.numbers.dtype == np.int64
    assert cell.fraction("Li") == 10 / 14
    assert cell.fraction("O") == 0


def test_equal_counts_are_the_same_cell_in_any_order():
    one, two = CellFormula.from_counts({"Si": 2, "Li": 5, "O": 0}), CellFormula.from_counts({"Li": 5, "Si": 2})
    assert one == two
    assert hash(one) == hash(two)


def test_every_composition_of_a_binary_is_listed_once():
    found = from_system("Li-Si", min_atoms=3, max_atoms=6)
    assert len(found) == len(set(found)) == 2 + 3 + 4 + 5
    assert all(3 <= cell.n_atoms <= 6 and set(cell.elements) == {"Li", "Si"} for cell in found)


@pytest.mark.parametrize("seed", range(5))
def test_constraints_keep_exactly_what_a_direct_check_keeps(seed):
    rng = np.random.default_rng(seed)
    low, high = sorted(rng.uniform(0, 0.7, 2))
    every = from_system("Li-P-S", max_atoms=12)
    kept = from_system(
        "Li-P-S", max_atoms=12, composition_order=[["S", "Li", "P"]], fractions={"S": (low, max(high, 0.6))}
    )
    wanted = [
        cell
        for cell in every
        if cell.as_dict["S"] > cell.as_dict["Li"] > cell.as_dict["P"] and low <= cell.fraction("S") <= max(high, 0.6)
    ]
    assert kept == wanted


def test_a_fraction_bound_includes_its_end():
    third = (0.3333333333, 0.3333333333)
    assert [str(cell) for cell in from_system("Li-Si", min_atoms=3, max_atoms=6, fractions={"Li": third})] == [
        "LiSi2",
        "Li2Si4",
    ]


def test_formulas_are_expanded_over_z():
    assert [str(cell) for cell in from_formulas(["Li5Si2"], max_atoms=28)] == [
        "Li5Si2",
        "Li10Si4",
        "Li15Si6",
        "Li20Si8",
    ]
    assert [cell.n_atoms for cell in from_formulas(["Li2Si", "Li4Si2"], min_atoms=6, max_atoms=9)] == [6, 9]


def test_a_single_element_is_a_system():
    assert [cell.n_atoms for cell in from_system("Si", max_atoms=3)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: parse_system("Li-Xx"), "unknown element 'Xx'"),
        (lambda: parse_system("Li-Li"), "listed twice"),
        (lambda: CellFormula.parse("Li2Qq"), "Qq"),
        (lambda: CellFormula.parse("Li0.5Si"), "whole numbers"),
        (lambda: CellFormula.from_counts({"Li": -1}), "at least 1"),
        (lambda: CellFormula.from_counts({}), "at least one atom"),
        (lambda: from_formulas(["Li5Si2"], max_atoms=6), "max_atoms=7"),
        (lambda: from_formulas([], max_atoms=6), "no formula"),
        (lambda: from_system("Li-Si", min_atoms=9, max_atoms=4), "min_atoms"),
        (lambda: from_system("Li-Si", max_atoms=2, composition_order=[["Li", "Si"]]), "raise max_atoms"),
        (lambda: from_system("Li-Si", max_atoms=9, composition_order=[["Li", "O"]]), "not in the system"),
        (lambda: from_system("Li-Si", max_atoms=9, composition_order=[["Li"]]), "two or more"),
        (lambda: from_system("Li-Si", max_atoms=9, fractions={"Li": (0.9, 0.1)}), "low <= high"),
        (lambda: from_system("Li-P-S-O-N", max_atoms=60), "lower max_atoms"),
    ],
)
def test_bad_input_names_the_value_and_the_remedy(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# --- compounds and filters ----------------------------------------------------------------------------------------


def test_mixtures_of_compounds_are_on_their_line():
    cells = from_terminals(["Li2S", "P2S5"], max_atoms=40)
    assert {"Li2S", "P2S5", "Li3PS4", "Li4P2S7", "LiPS3"} <= {cell.reduced for cell in cells}
    for cell in cells:  # charges of all of them add up to zero
        counts = cell.as_dict
        assert counts.get("Li", 0) + 5 * counts.get("P", 0) == 2 * counts["S"]
    assert max(cell.n_atoms for cell in cells) <= 40 and len(set(cells)) == len(cells)


@pytest.mark.parametrize(
    ("terminals", "budget", "words"),
    [(["Li2S"], 10, "at least two"), (["Li2S", "Xx"], 10, "Xx"), (["Li2S", "P2S5"], 2, "raise max_atoms")],
)
def test_terminals_that_make_nothing_are_refused(terminals, budget, words):
    with pytest.raises(ValueError, match=words):
        from_terminals(terminals, max_atoms=budget)


@pytest.mark.parametrize(
    ("formula", "neutral"),
    [("Mn3O4", True), ("LiMnO2", True), ("Li2MnO2", True), ("Li5MnO2", False), ("FeS2", False), ("Fe2O3", True)],
)
def test_charges_of_one_element_may_differ(formula, neutral):
    valences = {"Mn": [2, 3, 4], "Fe": [2, 3], "O": [-2], "S": [-2], "Li": [1]}
    assert can_be_neutral(CellFormula.parse(formula), valences) is neutral


def test_usual_valences_are_pymatgens_and_own_ones_replace_them():
    found = usual_valences(["Li", "Fe"], {"Fe": (4,)})
    assert found == {"Li": (1,), "Fe": (4,)}
    with pytest.raises(ValueError, match="Ar has no usual charge"):
        usual_valences(["Ar"], {})


@pytest.mark.parametrize(
    ("formula", "family", "belongs"),
    [
        ("CaTiO3", "perovskite", True),
        ("Ca4Ti4O12", "perovskite", True),
        ("MgAl2O4", "spinel", True),
        ("LiFePO4", "olivine", True),
        ("Li2O", "ABC3", False),
        ("Li2O", "A2B", True),
    ],
)
def test_families_are_known_by_name_and_by_letters(formula, family, belongs):
    assert has_stoichiometry(CellFormula.parse(formula), [family]) is belongs


def test_an_unknown_family_is_refused():
    with pytest.raises(ValueError, match="none of rocksalt"):
        has_stoichiometry(CellFormula.parse("Li2O"), ["zeolite"])


def test_steps_and_the_smallest_formulas():
    cells = from_system("Li-Si", max_atoms=10)
    assert {str(cell) for cell in cells if on_steps(cell, 0.25)} == {
        "LiSi",
        "Li2Si2",
        "LiSi3",
        "Li3Si",
        "Li3Si3",
        "Li4Si4",
        "Li2Si6",
        "Li6Si2",
        "Li5Si5",
    }
    kept = smallest_formulas(cells, 3)
    assert {cell.reduced for cell in kept} == {"LiSi", "Li2Si", "LiSi2"}
    assert "Li4Si4" in map(str, kept)  # larger cells of a formula stay


def test_reduced_formulas_are_pymatgens():
    for cell in from_system("Li-P-O", max_atoms=9):
        assert cell.reduced == cell.pymatgen.reduced_formula
    assert CellFormula.parse("O4").reduced == "O2"
