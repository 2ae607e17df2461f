from collections import Counter

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from model.crystals.crystal import Crystal
from model.crystals.screening import ScreenSettings
from model.diffusion.sampler import HeunSettings, Template
from model.relaxation.relax import RelaxSettings
from model.stages import CrystalMaker, Made, Rejected, Relaxer
from search.storage.crystal_files import read_host
from search.studies.inpaint import Region, fill, make_templates, refine_fillings

SHORT = HeunSettings(steps=4)


@pytest.fixture
def host(host_file):
    return read_host(host_file)


@pytest.fixture(scope="module")
def stations(tiny_weights):
    """A crystal maker that has learnt nothing and a real relaxer of few steps."""
    relaxation = RelaxSettings(cell="fixed", max_steps=5)
    return CrystalMaker(str(tiny_weights), "cpu"), Relaxer("chgnet-0.3.0", relaxation, ScreenSettings())


class Pretender:
    """Stands for crystal maker and relaxer: guests stay where the template has them,
    energies and failures are given.
    """

    def __init__(self, relaxation, outcomes):
        self.relaxation, self.outcomes = relaxation, list(outcomes)
        self.batches, self.masks, self.samplers = [], [], []

    def generate(self, templates, generators, settings):
        assert generators == ["inpainting"] * len(templates) and len(settings) == len(templates)
        (sampler,) = set(settings)
        self.batches.append(len(templates))
        self.samplers.append(sampler)
        return [
            Made(crystal=template.crystal, evaluations=1, score_model="none", seconds=0.0) for template in templates
        ]

    def relax(self, crystals, free=None):
        self.masks.append(free)
        return [
            Rejected(outcome)
            if outcome in ("too_close", "duplicate")
            else self.relaxation(crystal, energy=-1.0, reason=outcome)
            if isinstance(outcome, str)
            else self.relaxation(crystal, energy=outcome)
            for crystal, outcome in ((crystal, self.outcomes.pop(0)) for crystal in crystals)
        ]


# --- reading ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["host.cif", "POSCAR", "host.json"])
def test_hosts_are_read_from_what_pymatgen_reads(tmp_path, licoo2, name):
    licoo2.to_pymatgen().to(tmp_path / name)
    read = read_host(tmp_path / name)
    assert Counter(read.symbols) == Counter(licoo2.symbols)
    assert read.volume == pytest.approx(licoo2.volume, rel=1e-5)


def test_a_missing_host_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere\.cif does not exist"):
        read_host(tmp_path / "nowhere.cif")


@pytest.mark.filterwarnings("ignore::UserWarning")  # pymatgen warns before it gives up
@pytest.mark.parametrize(("name", "text"), [("bad.cif", "no crystal"), ("bad.xyzzy", "C 0 0 0"), ("POSCAR", "")])
def test_a_file_without_a_crystal_is_named(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=rf"{name} cannot be read as a crystal: "):
        read_host(tmp_path / name)


def test_partial_occupancy_is_refused_with_the_site_and_the_remedy(tmp_path):
    Structure(Lattice.cubic(4.2), [{"Li": 0.5, "Na": 0.5}, "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]).to(
        tmp_path / "half.cif"
    )
    with pytest.raises(ValueError, match=r"partially occupied.*Li.*0\.5.*hostguide inpaint FILE"):
        read_host(tmp_path / "half.cif")


# --- templates ----------------------------------------------------------------------------------------------------


def test_templates_are_the_host_and_unplaced_guests(host):
    templates = make_templates(host, {"Li": 2, "Na": 1}, samples=3, seed=0)
    assert len(templates) == 3
    for template in templates:
        assert template.crystal.select(~template.guest).identity == host.identity
        assert template.crystal.select(template.guest).symbols == ["Li", "Li", "Na"]


def test_more_samples_begin_with_the_same_ones(host):
    few, many = (make_templates(host, {"Li": 1}, samples=n, seed=3) for n in (2, 9))
    assert [template.seed for template in many][:2] == [template.seed for template in few]
    assert len({template.seed for template in many}) == 9
    assert {template.seed for template in make_templates(host, {"Li": 1}, samples=9, seed=4)}.isdisjoint(
        b.seed for b in many
    )


@pytest.mark.parametrize(
    ("guests", "samples", "words"),
    [
        ({"Xx": 1}, 1, "'Xx' is not an element"),
        ({"Li": 0}, 1, "count of Li must be at least 1, got 0"),
        ({"Li": 1, "Na": -2}, 1, "count of Na must be at least 1, got -2"),
        ({"Li": 1}, 0, "samples must be at least 1, got 0"),
    ],
)
def test_impossible_guests_are_refused(host, guests, samples, words):
    with pytest.raises(ValueError, match=words):
        make_templates(host, guests, samples=samples, seed=0)


def test_more_guests_than_there_is_room_for_are_refused(host):
    with pytest.raises(ValueError, match=r"500 guests do not fit into CoO2: .* 32 Å³ contains 3 atoms and has room"):
        make_templates(host, {"Li": 500}, samples=1, seed=0)
    make_templates(host, {"Li": 3}, samples=1, seed=0)  # dense, but relaxation may make room
    with pytest.raises(ValueError, match="room for at most 0 such guests"):
        make_templates(host.replace(lattice=host.lattice * 0.3), {"Cs": 1}, samples=1, seed=0)


# --- filling ------------------------------------------------------------------------------------------------------


def test_the_lowest_energy_comes_first_and_failures_have_reasons(host, relaxation):
    both = Pretender(relaxation, [-1.0, "too_close", -3.0, "nan", -2.0, "duplicate", "step_limit"])
    filled, dropped = fill(make_templates(host, {"Li": 1}, samples=7, seed=0), both, both)
    assert [one.relaxation.energy_final for one in filled] == [-3.0, -2.0, -1.0, -1.0]
    assert filled[-1].relaxation.reason == "step_limit"  # not converged, but still a crystal with an energy
    assert sorted(dropped) == ["duplicate", "nan", "too_close"]
    for one in filled:
        assert one.crystal.select(~one.guest).symbols == host.symbols
        assert one.crystal.select(one.guest).symbols == ["Li"]


def test_samples_go_in_batches_and_are_reported(host, relaxation):
    both, seen = Pretender(relaxation, [-1.0] * 7), []
    fill(
        make_templates(host, {"Li": 1}, samples=7, seed=0),
        both,
        both,
        sampler=SHORT,
        batch=3,
        report=lambda stage, n: seen.append((stage, n)),
    )
    assert both.batches == [3, 3, 1]
    assert both.samplers == [SHORT] * 3
    assert seen == [(stage, n) for n in (3, 3, 1) for stage in ("placed", "relaxed")]


def test_only_guests_are_free_if_asked_for(host, relaxation):
    for guests_only in (False, True):
        both = Pretender(relaxation, [-1.0] * 2)
        fill(make_templates(host, {"Li": 1}, samples=2, seed=0), both, both, free_guests_only=guests_only)
        (masks,) = both.masks
        assert (masks is not None) == guests_only
        assert masks is None or [mask.tolist() for mask in masks] == [[False] * len(host) + [True]] * 2


def test_the_same_seed_fills_the_same_way(host, stations):
    templates = make_templates(host, {"Li": 1}, samples=3, seed=0)
    some, others = (fill(templates, *stations, sampler=SHORT, batch=n)[0] for n in (3, 3))
    assert some
    assert [one.crystal.identity for one in some] == [one.crystal.identity for one in others]


def test_a_fixed_host_stays_where_it_is(host, stations):
    filled, _ = fill(
        make_templates(host, {"Li": 1}, samples=3, seed=0), *stations, sampler=SHORT, free_guests_only=True
    )
    assert filled
    for one in filled:
        kept = one.crystal.select(~one.guest)
        assert np.array_equal(kept.lattice, host.lattice)
        assert np.allclose(kept.fractional, host.fractional, rtol=0, atol=1e-14)


# --- a region ----------------------------------------------------------------------------------------------------


@pytest.fixture
def slab(licoo2):
    """Four layers of LiCoO2 along c, 16 atoms."""
    return Crystal.from_pymatgen(licoo2.to_pymatgen() * [1, 1, 4])


@pytest.mark.parametrize(("low", "high"), [(0.3, 0.6), (0.8, 0.1)])
def test_atoms_of_a_region_are_placed_again_from_somewhere_in_it(slab, low, high):
    z = slab.fractional[:, 2] % 1
    inside = (z >= low) & (z < high) if low < high else (z >= low) | (z < high)
    templates = make_templates(slab, {"Na": 2}, samples=3, seed=0, region=Region(low, high))
    for template in templates:
        assert template.start_here
        assert template.guest.tolist() == [*inside.tolist(), True, True]
        assert np.array_equal(template.crystal.fractional[:16][~inside], slab.fractional[~inside])
        assert template.crystal.symbols == [*slab.symbols, "Na", "Na"]
        assert Region(low, high).holds(template.crystal.fractional[template.guest]).all()
    assert len({template.crystal.identity for template in templates}) == 3


@pytest.mark.parametrize(
    ("region", "words"),
    [
        ((0.3, 0.3), "two different fractions of c from 0 to 1, got 0.3 and 0.3"),
        ((0.3, 1.2), "from 0 to 1, got 0.3 and 1.2"),
        ((0.0, 1.0), "3 of the 3 atoms of CoO2 .* no host is left. Choose another region"),
        ((0.45, 0.5), "0 of the 3 atoms of CoO2 .* there is nothing to place"),
    ],
)
def test_impossible_regions_are_refused(host, region, words):
    with pytest.raises(ValueError, match=words):
        make_templates(host, {}, samples=1, seed=0, region=Region(*region))


# --- refinement --------------------------------------------------------------------------------------------------


def test_a_round_takes_out_neighbouring_guests_of_the_best(slab, relaxation):
    """The best arrangements are the start; what stays in place is all but one guest and its neighbours."""
    lithium = slab.numbers == 3
    start = Pretender(relaxation, [-1.995])
    (first,), _ = fill([Template(crystal=slab, guest=lithium, seed=0)], start, start)
    both, taken = Pretender(relaxation, [-2.0] * 12), []
    generate = both.generate
    both.generate = lambda templates, *others: taken.extend(templates) or generate(templates, *others)
    filled, dropped = refine_fillings([first], both, both, samples=12, seed=0, free_guests_only=True)
    assert [one.relaxation.energy_final for one in filled] == [-2.0]  # one crystal, whatever it was relaxed from
    assert dropped == ["duplicate"] * 12
    assert {mask.tolist() == lithium.tolist() for batch in both.masks for mask in batch} == {True}  # all guests relax
    sizes = {int(template.guest.sum()) for template in taken}
    assert sizes <= {1, 2, 3, 4}
    assert len(sizes) > 2
    assert all(not template.guest[~lithium].any() and template.crystal is first.crystal for template in taken)


def test_rounds_never_lose_the_best_and_follow_the_seed(host, stations):
    first, _ = fill(make_templates(host, {"Li": 1}, samples=3, seed=0), *stations, sampler=SHORT)
    one, same, other = (
        refine_fillings(first, *stations, samples=3, seed=(seed, 1), sampler=SHORT)[0] for seed in (0, 0, 1)
    )
    assert one[0].relaxation.energy_final <= first[0].relaxation.energy_final
    assert [a.crystal.identity for a in one] == [b.crystal.identity for b in same]
    assert {a.crystal.identity for a in one} != {b.crystal.identity for b in other}
