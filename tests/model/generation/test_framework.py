import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from model.crystals.crystal import Crystal
from model.generation.framework import (
    DEFAULT_LADDER,
    OUTCOMES,
    choose_guest,
    climb,
    effective_coordination,
    extract_frameworks,
    guest_spread,
    split,
)
from model.symmetry.space_group import space_group

LICOO2 = Structure.from_spacegroup(
    "R-3m", Lattice.hexagonal(2.816, 14.05), ["Li", "Co", "O"], [[0, 0, 0.5], [0, 0, 0], [0, 0, 0.2605]]
)
SALT = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def layered(remove=()):
    """Hexagonal LiCoO2 (three formula units) without the lithium atoms of these indices."""
    structure = LICOO2.copy()
    structure.remove_sites([i for i, site in enumerate(structure) if site.specie.symbol == "Li" and i in remove])
    return Crystal.from_pymatgen(structure)


def rattled(crystal, rng, width):
    noise = rng.normal(size=(len(crystal), 3)) * width
    return crystal.replace(fractional=crystal.fractional + noise @ np.linalg.inv(crystal.lattice))


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
    spread = guest_spread(crystals)
    assert max(spread, key=spread.get) == "Li"
    assert spread["P"] < 0.5 * spread["Li"]
    assert choose_guest(crystals) == ["Li"]


def test_the_choice_can_be_overridden_and_symmetry_leaves_it_to_electronegativity():
    salt = Crystal.from_pymatgen(SALT)
    assert guest_spread([salt]) == pytest.approx({"Cl": 0, "Na": 0}, abs=1e-6)
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
def test_the_ladder_finds_the_layered_host(seed):
    parent = rattled(layered(), np.random.default_rng(seed), 0.08)
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
    parent = rattled(layered(removed), np.random.default_rng(1), 0.03)
    frameworks = extract_frameworks(parent, ["Li"])
    assert frameworks
    for framework in frameworks:
        assert framework.host.symbols.count("Co") * framework.cell_ratio == 3
        assert framework.guests["Li"] * framework.cell_ratio == 3 - len(removed)
        filled = framework.host.join(
            Crystal(framework.host.lattice, np.zeros((len(framework.guest_numbers), 3)), framework.guest_numbers)
        )
        assert filled.formula == parent.formula
    sizes = {framework.cell_ratio for framework in frameworks if framework.space_group.number == 166}
    assert sizes == ({3} if not removed else {1})


def test_several_guests_share_the_host():
    numbers = layered().numbers.copy()
    numbers[np.flatnonzero(numbers == 3)[0]] = 11
    frameworks = extract_frameworks(layered().replace(numbers=numbers), ["Na", "Li"])
    assert frameworks[0].guests == {"Li": 2, "Na": 1}
    assert frameworks[0].guest_numbers.tolist() == [3, 3, 11]
    assert frameworks[0].cell_ratio == 1


def test_a_single_element_host():
    frameworks = extract_frameworks(Crystal.from_pymatgen(SALT), ["Na"])
    assert [framework.space_group.number for framework in frameworks] == [225]
    assert len(frameworks[0].host) == 1
    assert frameworks[0].guests == {"Na": 1}


def test_every_rung_is_recorded():
    parent = rattled(layered(), np.random.default_rng(3), 0.05)
    rungs = climb(parent, ["Li"])
    assert [(rung.symprec, rung.angle) for rung in rungs] == list(DEFAULT_LADDER)
    assert {rung.outcome for rung in rungs} <= set(OUTCOMES)
    assert all((rung.outcome == "kept") == (rung.framework is not None) for rung in rungs)
    assert rungs[0].outcome in ("low_symmetry", "kept")
    assert "repeated" in [rung.outcome for rung in rungs]


def test_skipped_groups_give_no_framework():
    parent = Crystal.from_pymatgen(SALT)
    assert extract_frameworks(parent, ["Na"], skip=(1, 225)) == []
    assert {rung.outcome for rung in climb(parent, ["Na"], skip=(1, 225))} == {"low_symmetry"}


def test_fused_and_failed_hosts_are_recorded():
    """Two silicon atoms 0.5 Å apart: spglib either refuses them or keeps them, and neither makes a framework."""
    pair = Crystal(np.eye(3) * 6, [[0, 0, 0], [0, 0, 0.5 / 6], [0.5, 0.5, 0.5]], [14, 14, 3])
    outcomes = [rung.outcome for rung in climb(pair, ["Li"])]
    assert set(outcomes) <= {"fused", "no_symmetry"}
    assert "fused" in outcomes


@pytest.mark.parametrize("seed", range(4))
def test_random_parents_never_break_the_ladder(seed):
    rng = np.random.default_rng(seed)
    parent = Crystal(np.eye(3) * 7 + rng.uniform(-1.5, 1.5, (3, 3)), rng.random((10, 3)), [3] * 4 + [15] * 2 + [16] * 4)
    for framework in extract_frameworks(parent, ["Li"]):
        assert framework.guests["Li"] * framework.cell_ratio == 4
        assert len(framework.host) * framework.cell_ratio == 6
