"""Symmetric guests: Wyckoff positions against International Tables, orbits, projection, groups that samples keep."""

import numpy as np
import pytest
import spglib
import torch
from pymatgen.core import Lattice, Structure
from torch import Tensor

from model.crystals.batch import Batch
from model.crystals.crystal import Crystal
from model.diffusion.sampler import AncestralSettings, HeunSettings, PredictorCorrectorSettings, Template, sample
from model.generation.wyckoff_placement import (
    HostGroup,
    draw_orbits,
    has_symmetric_subgroups,
    host_groups,
    on_orbits,
    place_guests,
)
from model.symmetry.sites import wyckoff_sites
from model.symmetry.space_group import space_group

TIS2 = Structure.from_spacegroup("P-3m1", Lattice.hexagonal(3.41, 5.7), ["Ti", "S"], [[0, 0, 0], [1 / 3, 2 / 3, 0.25]])
SPINEL = Structure.from_spacegroup(
    "Fd-3m:2", Lattice.cubic(8.2), ["Mn", "O"], [[0.5, 0.5, 0.5], [0.2625, 0.2625, 0.2625]]
)
PAPER = PredictorCorrectorSettings(steps=6, correctors=1, resamples=2, jump=2, sigma_min=0.05, sigma_max=2.0)


def template(host: Crystal, guests: list[int], seed: int = 0) -> Template:
    """A template whose guests stand before the host, so that the order of atoms is not the projector's own."""
    empty = Crystal(host.lattice, np.zeros((len(guests), 3)), guests)
    return Template(crystal=empty.join(host), guest=np.arange(len(guests) + len(host)) < len(guests), seed=seed)


def restless(batch: Batch, sigma: Tensor, guest: Tensor) -> Tensor:
    """A denoiser without any symmetry."""
    return sigma[batch.owner, None] * torch.sin(7 * batch.positions + torch.arange(3)) + 0.1


# number of Wyckoff positions: International Tables A
@pytest.mark.parametrize(
    ("number", "count"),
    [(1, 1), (2, 9), (14, 5), (47, 27), (62, 4), (166, 9), (194, 12), (225, 12), (227, 9), (230, 8)],
)
def test_wyckoff_positions_are_those_of_the_international_tables(number, count):
    hall = next(h for h in range(1, 531) if spglib.get_spacegroup_type(h).number == number)
    assert len(wyckoff_sites(hall)) == count


def test_multiplicities_and_freedoms_of_rock_salt_and_spinel():
    """Fm-3m: 4a 4b 8c 24d 24e 32f 48g 48h 48i 96j 96k 192l; Fd-3m: 8a 8b 16c 16d 32e 48f 96g 96h 192i."""
    salt = [(one.multiplicity, one.n_free) for one in wyckoff_sites(523)]
    assert salt == [
        (4, 0),
        (4, 0),
        (8, 0),
        (24, 0),
        (24, 1),
        (32, 1),
        (48, 1),
        (48, 1),
        (48, 1),
        (96, 2),
        (96, 2),
        (192, 3),
    ]
    spinel = [(one.multiplicity, one.n_free) for one in wyckoff_sites(526)]
    assert spinel == [(8, 0), (8, 0), (16, 0), (16, 0), (32, 1), (48, 1), (96, 1), (96, 2), (192, 3)]


@pytest.mark.slow
def test_all_space_groups_together_have_1731_wyckoff_positions():
    first = {spglib.get_spacegroup_type(hall).number: hall for hall in reversed(range(1, 531))}
    assert sum(len(wyckoff_sites(hall)) for hall in first.values()) == 1731


@pytest.fixture(scope="module")
def spinel() -> HostGroup:
    """Fd-3m of the primitive cell of a spinel without its tetrahedral atoms."""
    return host_groups(Crystal.from_pymatgen(SPINEL.get_primitive_structure()))[0]


def test_groups_of_a_host_descend_to_p1_and_are_groups():
    groups = host_groups(Crystal.from_pymatgen(TIS2))
    assert str(groups[0]) == "P-3m1 (164)" and str(groups[-1]) == "P1 (1)"
    assert [len(group) for group in groups] == sorted([len(group) for group in groups], reverse=True)
    # classes of subgroups of -3m: -3m, 32, 3m, -3, 3, 2/m, m, 2, -1, 1
    assert sorted(group.number for group in groups) == sorted([164, 150, 156, 147, 143, 12, 8, 5, 2, 1])


@pytest.mark.parametrize("number", [2, 8, 12, 16, 43, 81, 143, 146, 147, 150, 166, 173, 195, 221])
def test_which_groups_have_symmetric_subgroups(number):
    """Of crystals with two atoms in general position."""
    cells = {2: (9, 10, 11, 80, 85, 95), 15: (9, 10, 11, 90, 97, 90), 74: (9, 10, 11, 90, 90, 90)}
    cells |= {142: (9, 9, 11, 90, 90, 90), 194: (9, 9, 11, 90, 90, 120), 230: (9, 9, 9, 90, 90, 90)}
    lattice = Lattice.from_parameters(*next(cell for last, cell in cells.items() if number <= last))
    atom = Structure.from_spacegroup(number, lattice, ["Si", "C"], [[0.13, 0.29, 0.41], [0.37, 0.23, 0.09]])
    groups = host_groups(Crystal.from_pymatgen(atom.get_primitive_structure()))
    assert groups[0].number == number
    assert has_symmetric_subgroups(number) == any(group.number > 1 for group in groups[1:])


def test_a_moved_and_a_doubled_host_keep_their_groups():
    host = Crystal.from_pymatgen(TIS2)
    shifted = host.replace(fractional=host.fractional + np.array([0.123, 0.4, 0.77]))
    assert host_groups(shifted)[0].number == 164
    doubled = host_groups(Crystal.from_pymatgen(TIS2 * (1, 1, 2)))
    assert doubled[0].number == 164 and len(doubled[0]) == 24  # with the lost translation
    assert [site.multiplicity for site in doubled[0].sites][:3] == [2, 2, 4]


def test_a_host_without_a_group_is_named():
    with pytest.raises(ValueError, match="no space group found for Si within"):
        host_groups(Crystal(np.eye(3) * 5, np.zeros((2, 3)), [14, 14]))


def test_draws_add_up_and_weigh_each_orbit_alike():
    """Four guests on a fixed pair, a fixed single and a free pair: {2f 2}, {2 2} and nothing else."""
    rng = np.random.default_rng(0)
    draws = [tuple(draw_orbits([(1, True), (2, True), (2, False)], 4, rng)) for _ in range(600)]
    assert set(draws) == {(0, 1, 1), (0, 0, 2)}
    assert draws.count((0, 1, 1)) == pytest.approx(300, abs=60)
    assert draw_orbits([(2, False), (4, True)], 3, rng) is None
    assert draw_orbits([], 1, rng) is None


def test_projection_is_idempotent_symmetric_and_the_average_over_the_group():
    group = host_groups(Crystal.from_pymatgen(TIS2))[0]
    projector = group.projector([group.sites[1], group.sites[4]])
    n = projector.targets.shape[1]
    matrix = torch.stack([projector.atoms(one.view(n, 3)).flatten() for one in torch.eye(3 * n, dtype=torch.float64)])
    torch.testing.assert_close(matrix @ matrix, matrix)
    torch.testing.assert_close(matrix, matrix.T)
    vectors = torch.from_numpy(np.random.default_rng(0).normal(size=(n, 3)))
    by_hand = torch.zeros_like(vectors)
    for rotation, target in zip(projector.rotations, projector.targets, strict=True):
        for atom in range(n):
            by_hand[target[atom]] += vectors[atom] @ rotation / len(group)
    torch.testing.assert_close(projector.atoms(vectors), by_hand)


def test_the_freedom_of_a_site_is_the_rank_of_its_projection():
    group = host_groups(Crystal.from_pymatgen(TIS2.get_primitive_structure()))[0]
    host = np.linalg.matrix_rank(dense(group, []))
    for site in group.sites:
        assert np.linalg.matrix_rank(dense(group, [site])) - host == site.n_free


def dense(group: HostGroup, sites) -> np.ndarray:
    projector = group.projector(sites)
    n = projector.targets.shape[1]
    rows = [projector.atoms(one.view(n, 3)).flatten() for one in torch.eye(3 * n, dtype=torch.float64)]
    return torch.stack(rows).numpy()


@pytest.mark.parametrize("settings", [AncestralSettings(steps=6), HeunSettings(steps=4), PAPER], ids=lambda s: s.kind)
def test_samples_keep_the_group_composition_and_host(settings, spinel):
    """Special and general positions, centred and shifted cells, two elements; a ragged batch with one plain crystal."""
    moved = Crystal.from_pymatgen(TIS2).replace(lattice=Lattice.hexagonal(5.1, 8.5).matrix)
    moved = moved.replace(fractional=moved.fractional + np.array([0.1, 0.27, 0.33]))
    group = host_groups(moved)[0]
    cases = [(group, [3] * 12), (group, [3, 3, 11, 3]), (spinel, [3, 3]), (group, [3] * 3)]
    chosen = [(group, template(group.host, guests, seed=5)) for group, guests in cases]
    placed = [place_guests(empty, group) for group, empty in chosen]
    assert None not in placed
    made = sample(restless, [*placed, chosen[3][1]], settings).crystals
    for (group, empty), crystal in zip(chosen, made, strict=False):
        assert len(symmetry(crystal)) % len(group) == 0
        assert crystal.formula == empty.crystal.formula
        np.testing.assert_array_equal(crystal.fractional[~empty.guest], empty.crystal.fractional[~empty.guest])
    assert space_group(made[4], 1e-3, -1.0).number == 1


def symmetry(crystal: Crystal) -> np.ndarray:
    return spglib.get_symmetry((crystal.lattice, crystal.fractional, crystal.numbers), symprec=1e-3)["rotations"]


def test_every_subgroup_is_kept():
    host = Crystal.from_pymatgen(TIS2).replace(lattice=Lattice.hexagonal(5.1, 8.5).matrix)
    groups = host_groups(host)
    placed = [place_guests(template(host, [3] * 6, seed=2), group) for group in groups]
    kept = [(group, one) for group, one in zip(groups, placed, strict=True) if one is not None]
    assert len(kept) > 6
    made = sample(restless, [one for _, one in kept], HeunSettings(steps=3)).crystals
    for (group, _), crystal in zip(kept, made, strict=True):
        assert len(symmetry(crystal)) % len(group) == 0


def test_a_point_site_is_filled_once_and_not_on_top_of_the_host():
    """Between TiS2 layers there is one octahedral site, so one Li has one place, and two cannot share it."""
    group = host_groups(Crystal.from_pymatgen(TIS2))[0]
    for seed in range(10):
        one = place_guests(template(group.host, [3], seed), group)
        np.testing.assert_allclose(one.crystal.fractional[0] % 1, [0, 0, 0.5], atol=1e-9)
        two = place_guests(template(group.host, [3, 11], seed), group)
        assert two is None


def test_a_sample_depends_on_its_seed_only():
    host = Crystal.from_pymatgen(TIS2).replace(lattice=Lattice.hexagonal(5.1, 8.5).matrix)
    group = host_groups(host)[0]
    many = [place_guests(template(host, [3] * 4, seed), group) for seed in range(4)]
    together = sample(restless, many, HeunSettings(steps=4), dtype=torch.float64).crystals
    again = place_guests(template(host, [3] * 4, 2), host_groups(host)[0])
    alone = sample(restless, [again], HeunSettings(steps=4), dtype=torch.float64).crystals[0]
    np.testing.assert_allclose(alone.fractional, together[2].fractional, atol=1e-9)
    assert len({crystal.identity for crystal in together}) == 4


def test_a_template_of_another_host_is_refused(licoo2):
    group = host_groups(Crystal.from_pymatgen(TIS2))[0]
    with pytest.raises(ValueError, match="the group belongs to the host TiS2, but the template is"):
        place_guests(template(licoo2, [3]), group)
    with pytest.raises(ValueError, match="a template with a projector needs start_here"):
        Template(crystal=licoo2, guest=licoo2.numbers == 3, seed=0, projector=group.projector([]))


def test_guests_come_back_to_a_group_that_was_passed_over_rather_than_lose_all_symmetry():
    host = Crystal.from_pymatgen(TIS2)
    groups = host_groups(host)
    given = [template(host, [3], seed) for seed in range(40)]
    assert all(on_orbits(one, groups[-2:], 0.9).projector is not None for one in given)
    assert on_orbits(given[0], groups[-1:], 0.9).projector is None
    taken = {len(on_orbits(one, groups, 0.5).projector.targets) for one in given}
    assert max(taken) == len(groups[0]) and len(taken) > 2
