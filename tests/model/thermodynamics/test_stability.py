import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition

from model.thermodynamics.reference import Reference, packaged_reference
from model.thermodynamics.stability import Stability


def toy(**energies):
    rows = [(f"id-{f}", f, e, np.nan, False, Composition(f).chemical_system) for f, e in energies.items()]
    columns = ["material_id", "formula", "energy_per_atom", "volume_per_atom", "relaxed", "system"]
    return Reference("toy", "toy", "1", pd.DataFrame(rows, columns=columns))


# By hand: LiSi lies 0.5 eV/atom below its elements; Li3Si 0.05 below them, but 0.2 above Li and LiSi.
BINARY = toy(Li=-2.0, Si=-5.0, LiSi=-4.0, Li3Si=-2.8)


def test_the_hull_of_a_binary_by_hand():
    stability = Stability(BINARY, "Li-Si")
    # Between Li (-2) and LiSi (-4), halfway in atoms: -3.
    assert stability.hull_energy("Li3Si") == pytest.approx(-3.0)
    judged = stability.decomposition("Li3Si", -2.8)
    assert judged.e_d == pytest.approx(0.2)
    assert judged.products == pytest.approx({"Li": 0.5, "LiSi": 0.5})


def test_products_that_were_not_relaxed_are_named():
    phases = BINARY.phases.assign(relaxed=BINARY.phases["formula"] == "LiSi")
    found = Stability(replace(BINARY, phases=phases), "Li-Si").decomposition("Li3Si", -2.8)
    assert found.single_points == ("Li",)


def test_a_candidate_below_the_hull_is_negative_and_never_joins_it():
    stability = Stability(BINARY, "Li-Si")
    assert stability.decomposition("Li3Si", -3.25).e_d == pytest.approx(-0.25)
    assert stability.decomposition("Li3Si", -3.0).e_d == pytest.approx(0.0)
    assert stability.decomposition("LiSi", -4.5).products == pytest.approx({"LiSi": 1.0})
    assert stability.decomposition("LiSi", -4.5).e_d == pytest.approx(-0.5)


def test_a_phase_that_was_found_joins_the_second_hull_only():
    stability = Stability(BINARY, "Li-Si")
    before = stability.decomposition("Li3Si", -3.0).e_d
    energy = stability.hull_energy("LiSi") - 0.1
    found = stability.extended({"LiSi": energy})
    assert found.decomposition("LiSi", energy).e_d == pytest.approx(0.0)
    assert found.decomposition("Li3Si", -3.0).e_d > before
    assert stability.decomposition("Li3Si", -3.0).e_d == before
    assert stability.decomposition("LiSi", energy).e_d == pytest.approx(-0.1)
    assert stability.extended({}) is stability


def test_multiples_of_a_formula_are_judged_alike():
    stability = Stability(BINARY, ["Si", "Li"])
    assert stability.decomposition("Li6Si2", -2.8) == stability.decomposition("Li3Si", -2.8)


def test_an_end_member_is_its_own_product():
    assert Stability(BINARY, "Li-Si").decomposition("Li7", -1.9).products == pytest.approx({"Li": 1.0})
    assert Stability(BINARY, "Li").decomposition("Li", -1.9).e_d == pytest.approx(0.1)


@pytest.mark.parametrize("seed", range(6))
def test_agreement_with_pymatgen_on_random_ternaries(seed):
    rng = np.random.default_rng(seed)
    formulas = {f"Li{a}P{b}S{c}" for a, b, c in rng.integers(1, 6, (25, 3))} | {"Li2S", "P2S5", "Li3P"}
    energies = {"Li": -2.0, "P": -5.0, "S": -4.0} | {
        Composition(f).reduced_formula: float(rng.uniform(-6, -4)) for f in sorted(formulas)
    }
    stability = Stability(toy(**energies), "Li-P-S")
    diagram = PhaseDiagram([PDEntry(Composition(f), e * Composition(f).num_atoms) for f, e in energies.items()])
    for a, b, c in rng.integers(0, 9, (30, 3)):
        composition = Composition({"Li": int(a), "P": int(b), "S": int(c)})
        if composition.num_atoms == 0:
            continue
        products, energy = diagram.get_decomp_and_hull_energy_per_atom(composition)
        judged = stability.decomposition(composition, -4.2)
        assert judged.e_d == pytest.approx(-4.2 - energy, abs=1e-6)
        assert sum(judged.products.values()) == pytest.approx(1)
        assert judged.products == pytest.approx(
            {phase.composition.reduced_formula: x for phase, x in products.items()}, abs=1e-6
        )


@pytest.mark.parametrize("seed", range(10))
def test_the_products_have_the_candidates_composition_and_energy(seed):
    rng = np.random.default_rng(seed)
    reference = packaged_reference()
    stability = Stability(reference, "Li-Si-P-S")
    counts = rng.integers(1, 12, 4)
    composition = Composition(dict(zip(["Li", "Si", "P", "S"], counts.tolist(), strict=True)))
    judged = stability.decomposition(composition, -3.0)
    energies = reference.phases.set_index("formula")["energy_per_atom"]
    for element in composition:
        mixed = sum(x * Composition(f).get_atomic_fraction(element) for f, x in judged.products.items())
        assert mixed == pytest.approx(composition.get_atomic_fraction(element), abs=1e-6)
    assert judged.e_d == pytest.approx(-3.0 - sum(x * energies[f] for f, x in judged.products.items()), abs=1e-6)


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match="no elemental phase of Na"):
        Stability(BINARY, "Li-Na")
    with pytest.raises(ValueError, match="Na, outside the system Li-Si"):
        Stability(BINARY, "Li-Si").decomposition("NaLi", -1)
    with pytest.raises(ValueError, match="unknown element 'Xy'"):
        Stability(BINARY, "Li-Xy")


def test_a_hull_travels_to_a_worker():
    stability = Stability(BINARY, "Li-Si")
    before = stability.decomposition("Li3Si", -2.8)
    travelled = pickle.loads(pickle.dumps(stability))
    assert travelled.decomposition("Li3Si", -2.8) == before
    assert travelled.decomposition("Li2Si", -2.8) == stability.decomposition("Li2Si", -2.8)
