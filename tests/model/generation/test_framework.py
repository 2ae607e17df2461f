import numpy as np
import pytest
from pymatgen.core import Composition, Lattice, Structure

from model.crystals.crystal import Crystal
from model.crystals.screening import ScreenSettings
from model.generation.framework import (
    DEFAULT_TOLERANCES,
    choose_guest,
    coordination_spread,
    effective_coordination,
    extract_frameworks,
    split,
)
from model.symmetry.space_group import space_group
from tests.support.crystals import rattled

LICOO2 = Structure.from_spacegroup(
    "R-3m", Lattice.hexagonal(2.816, 14.05), ["Li", "Co", "O"], [[0, 0, 0.5], [0, 0, 0], [0, 0, 0.2605]]
)
SALT = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def layered(remove=()):
    """Hexagonal LiCoO2 (three formula units) without the lithium atoms of these indices."""
    structure = LICOO2.copy()
    structure.remove_sites([i for i, site in enumerate(structure) if site.specie.symbol == "Li" and i in remove])
    return Crystal.from_pymatgen(structure)


def thiophosphates(count, seed):
    """Rigid PS4 tetrahedra in a box and lithium thrown in between."""
    rng = np.random.default_rng(seed)
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) * 2.05 / np.sqrt(3)
    made = []
    while len(made) < count:
        positions = np.concatenate([[[3.5, 3.5, 3.5]], 3.5 + corners, rng.uniform(0, 7, (3, 3))])
        crystal = Crystal(np.eye(3) * 7.0, positions / 7.0, [15] + [16] * 4 + [3] * 3)
        distances = crystal.to_pymatgen().distance_matrix[5:]
        distances[np.arange(3), np.arange(5, 8)] = 9
        if distances.min() > 2.2:
            made.append(crystal)
    return made


def test_effective_coordination_of_known_crystals():
    assert effective_coordination(Crystal.from_pymatgen(SALT)) == pytest.approx(np.full(8, 6), abs=0.1)
    diamond = Structure.from_spacegroup("Fd-3m", Lattice.cubic(5.43), ["Si"], [[0, 0, 0]])
    assert effective_coordination(Crystal.from_pymatgen(diamond)) == pytest.approx(np.full(8, 4), abs=0.05)


def test_lithium_is_the_guest_among_thiophosphates():
    crystals = thiophosphates(6, seed=0)
    spread = coordination_spread(crystals)
    assert max(spread, key=spread.get) == "Li"
    assert spread["P"] < 0.5 * spread["Li"]
    assert choose_guest(crystals) == ["Li"]


def test_the_choice_can_be_overridden_and_symmetry_leaves_it_to_electronegativity():
    salt = Crystal.from_pymatgen(SALT)
    assert coordination_spread([salt]) == pytest.approx({"Cl": 0, "Na": 0}, abs=1e-6)
    assert choose_guest(salt) == ["Na"]
    assert choose_guest(salt, ["Cl"]) == ["Cl"]


def test_one_element_has_no_guest():
    silicon = Crystal(np.eye(3) * 5, [[0, 0, 0], [0.5, 0.5, 0.5]], [14, 14])
    with pytest.raises(ValueError, match="only Si"):
        choose_guest(silicon)
    with pytest.raises(ValueError, match="at least one crystal"):
        choose_guest([])


def test_guests_out_and_counted():
    host, guests = split(layered(), ["Li"])
    assert host.formula == "CoO2"
    assert len(host) == 9
    assert guests == {"Li": 3}


@pytest.mark.parametrize(
    ("guests", "words"),
    [(["Mg"], "has no Mg"), ([], "must be a list"), ("Li", "must be a list"), (["Li", "Co", "O"], "nothing")],
)
def test_impossible_guests_are_refused(guests, words):
    with pytest.raises(ValueError, match=words):
        split(layered(), guests)


@pytest.mark.parametrize("seed", range(5))
def test_tolerances_find_the_layered_host(seed):
    parent = rattled(layered(), seed, width=0.08)
    assert space_group(parent, 0.01, 5).number == 1
    frameworks = extract_frameworks(parent, ["Li"])
    numbers = [framework.space_group.number for framework in frameworks]
    assert 166 in numbers
    assert len(set(numbers)) == len(numbers)
    assert 1 not in numbers
    for framework in frameworks:
        assert space_group(framework.host, 1e-3, -1).number == framework.space_group.number
        assert "Li" not in framework.host.symbols
        assert framework.displacement < 1.0


@pytest.mark.parametrize("removed", [(), (0,), (0, 1)])
def test_framework_and_guests_have_the_parents_composition(removed):
    """Three, two or one lithium atom over the three primitive cells of the host."""
    parent = rattled(layered(removed), 1, width=0.03)
    frameworks = extract_frameworks(parent, ["Li"])
    assert frameworks
    for framework in frameworks:
        assert framework.host.symbols.count("Co") * framework.cell_ratio == 3
        assert framework.guests["Li"] * framework.cell_ratio == 3 - len(removed)
        whole = framework.host.composition + Composition(framework.guests)
        assert whole.reduced_formula == parent.formula
    sizes = {framework.cell_ratio for framework in frameworks if framework.space_group.number == 166}
    assert sizes == ({3} if not removed else {1})


def test_several_guests_share_the_host():
    numbers = layered().numbers.copy()
    numbers[np.flatnonzero(numbers == 3)[0]] = 11
    frameworks = extract_frameworks(layered().replace(numbers=numbers), ["Na", "Li"])
    assert frameworks[0].guests == {"Li": 2, "Na": 1}
    assert frameworks[0].cell_ratio == 1


def test_a_single_element_host():
    frameworks = extract_frameworks(Crystal.from_pymatgen(SALT), ["Na"])
    assert [framework.space_group.number for framework in frameworks] == [225]
    assert len(frameworks[0].host) == 1
    assert frameworks[0].guests == {"Na": 1}


@pytest.mark.parametrize("seed", range(5))
def test_each_group_above_p1_gives_one_framework_at_its_tightest_tolerance(seed):
    parent = rattled(layered(), seed, width=0.05)
    host, _ = split(parent, ["Li"])
    tightest = {}
    for tolerance in DEFAULT_TOLERANCES:
        tightest.setdefault(space_group(host, *tolerance).number, tolerance)
    assert tightest.pop(1) == DEFAULT_TOLERANCES[0] and 0 < len(tightest) < len(DEFAULT_TOLERANCES) - 1
    groups = [framework.space_group for framework in extract_frameworks(parent, ["Li"])]
    assert [(group.number, (group.symprec, group.angle)) for group in groups] == list(tightest.items())


def test_skipped_groups_give_no_framework():
    parent = Crystal.from_pymatgen(SALT)
    assert len(extract_frameworks(parent, ["Na"], skip=(1,))) == 1
    assert extract_frameworks(parent, ["Na"], skip=(1, 225)) == []


def test_hosts_whose_atoms_are_too_close_give_no_framework():
    """Two silicon atoms 0.6 Å apart; where the screening allows that, spglib still refuses wider tolerances."""
    pair = Crystal(np.eye(3) * 6, [[0, 0, 0], [0, 0, 0.1], [0.5, 0.5, 0.5]], [14, 14, 3])
    assert extract_frameworks(pair, ["Li"]) == []
    lenient = ScreenSettings(min_distance=0.1, covalent_fraction=0.0)
    assert extract_frameworks(pair, ["Li"], screening=lenient)
    wide = [tolerance for tolerance in DEFAULT_TOLERANCES if tolerance[0] > 0.6]
    assert extract_frameworks(pair, ["Li"], wide, screening=lenient) == []


def test_frameworks_of_random_parents_hold_what_the_parents_held():
    """Without any symmetry to begin with: only the widest tolerances find some, and not in every crystal."""
    frameworks = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        lattice = np.eye(3) * 7 + rng.uniform(-1.5, 1.5, (3, 3))
        parent = Crystal(lattice, rng.random((10, 3)), [3] * 4 + [15] * 2 + [16] * 4)
        frameworks += extract_frameworks(parent, ["Li"])
    assert len(frameworks) >= 3
    for framework in frameworks:
        assert framework.guests["Li"] * framework.cell_ratio == 4
        assert framework.host.symbols.count("P") * framework.cell_ratio == 2
        assert framework.host.symbols.count("S") * framework.cell_ratio == 4
        assert space_group(framework.host, 1e-3, -1).number == framework.space_group.number > 1
