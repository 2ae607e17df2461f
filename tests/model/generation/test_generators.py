"""What every generator keeps to, whatever its way."""

import numpy as np
import pytest

from model.crystals.composition import CellFormula
from model.crystals.crystal import Crystal
from model.crystals.lattice import sample_lattice
from model.diffusion.sampler import AncestralSettings, Template
from model.generation.ion_substitution import substitutions
from model.generation.mutation import mutations
from model.generation.random_crystal import RandomSettings
from model.generation.structure_types import StructureTypes
from model.generation.wyckoff_placement import SubgroupSettings, SymmetricSettings
from model.generators.registry import GENERATORS
from model.library.phases import packaged_library
from model.stages import CrystalMaker
from model.symmetry.space_group import space_group

# Whose templates are whole crystals already: nothing is left to chance. Those of "mode" here have no phonons.
FILLED = ("ion_substitution", "mutation", "mode")
TYPES = StructureTypes(packaged_library())
FEW = AncestralSettings(steps=3)
SETTINGS = {
    "diffusion": FEW,
    "random": RandomSettings(),
    "ion_substitution": None,
    "mutation": None,
    "mode": None,
    "inpainting": FEW,
    "symmetric": SymmetricSettings(sampler=FEW),
    "subgroup": SubgroupSettings(sampler=FEW),
}


@pytest.fixture(scope="module")
def maker(tiny_weights):
    return CrystalMaker(str(tiny_weights), "cpu")


@pytest.fixture(scope="module")
def generate(maker):
    """A function that makes crystals by one generator."""

    def made_by(name, given, settings=None):
        return maker.generate(given, [name] * len(given), [settings or SETTINGS[name]] * len(given))

    return made_by


def crystals(made):
    return [one.crystal for one in made]


def test_every_generator_of_the_registry_is_tested_here():
    assert list(SETTINGS) == list(GENERATORS)


def templates(method, host, seeds):
    """A ragged batch of what the method is given."""
    if method in ("inpainting", "symmetric", "subgroup"):
        counts = (1, 2)
        filled = [host.join(Crystal(host.lattice, np.zeros((n, 3)), [3] * n)) for n in counts]
        return [
            Template(crystal=crystal, guest=np.arange(len(crystal)) >= len(host), seed=seed)
            for crystal, seed in zip(filled, seeds, strict=True)
        ]
    made = []
    for cell, bravais, seed in zip(map(CellFormula.parse, ("Li4Si2", "LiSi")), ("hR", "oS"), seeds, strict=True):
        lattice = sample_lattice(bravais, 16.0 * cell.n_atoms, np.random.default_rng(seed))
        crystal = Crystal(lattice, np.zeros((cell.n_atoms, 3)), cell.numbers)
        if method == "ion_substitution":
            crystal = substitutions(cell, TYPES)[0].crystal()
        elif method == "mutation":
            crystal = mutations(substitutions(cell, TYPES)[0].crystal(), CellFormula.parse(f"{cell}Li"))[0]
        made.append(
            Template(crystal=crystal, guest=np.full(len(crystal), method not in FILLED), seed=seed, bravais=bravais)
        )
    return made


@pytest.fixture(scope="module")
def host(licoo2):
    return licoo2.select(licoo2.numbers != 3)


@pytest.mark.parametrize("method", SETTINGS)
def test_crystals_hold_the_atoms_in_the_cells_that_were_asked_for(generate, host, method):
    given = templates(method, host, (1, 2))
    made = generate(method, given)
    for template, crystal in zip(given, crystals(made), strict=True):
        assert np.array_equal(crystal.numbers, template.crystal.numbers)
        assert np.array_equal(crystal.lattice, template.crystal.lattice)
        fixed = ~template.guest
        step = crystal.fractional[fixed] - template.crystal.fractional[fixed]
        assert np.abs(step - np.round(step)).max(initial=0) < 1e-9
    network = method not in ("random", *FILLED)
    for one in made:
        assert (one.evaluations > 0, one.score_model is not None) == (network, network)


@pytest.mark.parametrize("method", SETTINGS)
def test_a_seed_decides_a_crystal_whatever_shares_its_batch(generate, host, method):
    first, second = templates(method, host, (1, 2))
    together = crystals(generate(method, [first, second]))
    alone = crystals(generate(method, [second]))
    assert np.allclose(together[1].fractional, alone[0].fractional, atol=1e-4)
    if method in FILLED:
        assert [crystal.identity for crystal in together] == [template.crystal.identity for template in (first, second)]
    else:
        other = crystals(generate(method, templates(method, host, (1, 3))))
        assert not np.allclose(other[1].fractional, together[1].fractional, atol=1e-3)


def test_guests_on_orbits_keep_a_group_of_their_host(generate, host):
    given = [
        Template(crystal=host.join(Crystal(host.lattice, np.zeros((1, 3)), [3])), guest=np.arange(4) >= 3, seed=s)
        for s in range(4)
    ]
    made = crystals(generate("symmetric", given))
    assert {space_group(crystal, 1e-3).symbol for crystal in made} == {"R-3m"}
    lower = crystals(generate("subgroup", given, SubgroupSettings(descend=0.9, sampler=FEW)))
    assert len({space_group(crystal, 1e-3).symbol for crystal in lower}) > 1


def test_a_host_without_symmetry_is_filled_without(generate, host):
    bare = host.replace(fractional=host.fractional + np.random.default_rng(0).normal(0, 0.05, (3, 3)))
    given = [Template(crystal=bare.join(Crystal(host.lattice, np.zeros((1, 3)), [3])), guest=np.arange(4) >= 3, seed=0)]
    (plain,) = generate("inpainting", given)
    for name in ("symmetric", "subgroup"):
        (made,) = generate(name, given)
        assert made.crystal.identity == plain.crystal.identity  # to the bit
        assert made.evaluations == plain.evaluations


def test_in_a_mixed_batch_every_crystal_has_its_own_cost_and_origin(maker, host):
    """The results come in the order of the templates, so that a part of a batch is a slice of them."""
    names = ["random", "diffusion", "symmetric", "ion_substitution", "diffusion"]
    given = [templates(name, host, (1, 2))[place % 2] for place, name in enumerate(names)]
    made = maker.generate(given, names, [SETTINGS[name] for name in names])
    assert [one.evaluations > 0 for one in made] == [False, True, True, False, True]
    assert [one.score_model is not None for one in made] == [False, True, True, False, True]
    for template, one in zip(given, made, strict=True):
        assert np.array_equal(one.crystal.numbers, template.crystal.numbers)
