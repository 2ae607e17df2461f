"""Surroundings in crystals that everyone knows, in layers, slabs and molecules, and in shaken crystals."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bcc100, bulk, fcc100, fcc110, fcc111, graphene, hcp0001, molecule, mx2, nanotube, surface
from pymatgen.core import Lattice, Structure
from scipy.spatial.transform import Rotation

from model.analysis.coordination import Shell, coordination_numbers, coordination_statistics, neighbour_shells
from model.crystals.crystal import Crystal
from tests.support.crystals import rattled

DATA = Path(__file__).parents[2] / "data"
KNOWN = json.loads((DATA / "coordination.json").read_text())


def known(name):
    one = KNOWN[name]
    lattice = Lattice.from_parameters(*one["cell"])
    return Crystal.from_pymatgen(Structure.from_spacegroup(one["group"], lattice, one["species"], one["sites"]))


def surroundings(crystal):
    """Element -> the different shells of its atoms."""
    found = {}
    for shell, symbol in zip(neighbour_shells(crystal), crystal.symbols, strict=True):
        found.setdefault(symbol, set()).add(str(shell))
    return {symbol: sorted(shells) for symbol, shells in found.items()}


@pytest.mark.parametrize("name", KNOWN)
def test_textbook_crystals(name):
    """Salts, oxides, layered chalcogenides, mixed anions, metals, alloys, covalent and molecular crystals."""
    found = surroundings(known(name))
    assert {symbol: found[symbol] for symbol in KNOWN[name]["surroundings"]} == KNOWN[name]["surroundings"]


@pytest.mark.parametrize("name", ["LiFePO4", "SrTiO3", "PbFCl", "CaCO3", "MgCu2", "Ca(OH)2", "Mg2SiO4"])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_in_another_cell_turned_and_shaken(name, seed):
    rng = np.random.default_rng(seed)
    crystal = known(name)
    turned = crystal.lattice @ Rotation.random(random_state=seed).as_matrix()
    skewed = np.array([[1, 0, 0], [1, 1, 0], [-1, 2, 1]])
    crystal = Crystal(skewed @ turned, crystal.fractional @ np.linalg.inv(skewed), crystal.numbers)
    crystal = rattled(crystal, width=0.01, seed=seed)
    order = rng.permutation(len(crystal))
    crystal = crystal.replace(fractional=crystal.fractional[order] + 3, numbers=crystal.numbers[order])
    found = surroundings(crystal)
    assert {symbol: found[symbol] for symbol in KNOWN[name]["surroundings"]} == KNOWN[name]["surroundings"]


def periodic(atoms: Atoms, *, side: float | None = None) -> Crystal:
    if side is not None:
        atoms.set_cell([side] * 3)
        atoms.center()
    return Crystal.from_ase(atoms)


MGO = bulk("MgO", "rocksalt", a=4.21, cubic=True)
OPEN = {
    "Al(111)": (fcc111("Al", (1, 1, 5), vacuum=8), {"Al": {9: 2, 12: 3}}),
    "Al(100)": (fcc100("Al", (1, 1, 5), vacuum=8), {"Al": {8: 2, 12: 3}}),
    "Cu(110)": (fcc110("Cu", (1, 1, 7), vacuum=10), {"Cu": {7: 2, 11: 2, 12: 3}}),
    "Mg(0001)": (hcp0001("Mg", (1, 1, 5), vacuum=8), {"Mg": {9: 2, 12: 3}}),
    "Fe(100)": (bcc100("Fe", (1, 1, 5), vacuum=8), {"Fe": {9: 2, 13: 2, 14: 1}}),
    "MgO(100)": (surface(MGO, (0, 0, 1), 2, vacuum=8), {"Mg": {5: 4, 6: 4}, "O": {5: 4, 6: 4}}),
    "graphene, little vacuum": (graphene("C2", vacuum=4), {"C": {3: 2}}),
    "graphene, much vacuum": (graphene("C2", vacuum=30), {"C": {3: 2}}),
    "BN": (graphene("BN", a=2.50, vacuum=8), {"B": {3: 1}, "N": {3: 1}}),
    "MoS2": (mx2("MoS2", vacuum=8), {"Mo": {6: 1}, "S": {3: 2}}),
    "phosphorene": (
        Atoms(
            "P4",
            scaled_positions=[
                [0, 0.0533, 0.0806],
                [0, -0.0533, -0.0806],
                [0.5, 0.0533, 0.4194],
                [0.5, -0.0533, 0.5806],
            ],
            cell=[3.314, 20, 4.376],
        ),
        {"P": {3: 4}},
    ),
    "carbon nanotube": (nanotube(6, 0, length=1, vacuum=6), {"C": {3: 24}}),
    "carbyne": (Atoms("C2", positions=[[7, 7, 0], [7, 7, 1.29]], cell=[15, 15, 2.58]), {"C": {2: 2}}),
}


@pytest.mark.parametrize("name", OPEN)
def test_layers_slabs_and_chains_with_vacuum(name):
    atoms, expected = OPEN[name]
    crystal = periodic(atoms)
    numbers = coordination_numbers(crystal)
    found = {s: dict(Counter(numbers[np.array(crystal.symbols) == s].tolist())) for s in set(crystal.symbols)}
    assert found == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("H2O", {"H": ["1 O"], "O": ["2 H"]}),
        ("CO2", {"C": ["2 O"], "O": ["1 C"]}),
        ("CH4", {"C": ["4 H"], "H": ["1 C"]}),
        ("C6H6", {"C": ["2 C + 1 H"], "H": ["1 C"]}),
        ("N2", {"N": ["1 N"]}),
    ],
)
def test_molecules(name, expected):
    assert surroundings(periodic(molecule(name), side=12.0)) == expected


def test_an_atom_alone_has_no_neighbours():
    for element in ("He", "Li", "O"):
        alone = Crystal(12 * np.eye(3), [[0, 0, 0]], Crystal.from_ase(Atoms(element, cell=[9, 9, 9])).numbers)
        (shell,) = neighbour_shells(alone)
        assert (str(shell), shell.number) == ("none", 0)


@pytest.mark.parametrize("gas", ["He", "Ne", "Ar"])
@pytest.mark.parametrize(("cation", "anion", "a"), [("Mg", "O", 4.5), ("Na", "Cl", 5.64)])
def test_noble_gas_in_the_holes_of_a_salt_bonds_to_nothing(gas, cation, anion, a):
    sites = [[0.25, 0.25, 0.25], [0, 0, 0], [0.5, 0.5, 0.5]]
    salt = Structure.from_spacegroup("F-43m", Lattice.cubic(a), [gas, cation, anion], sites)
    expected = {gas: ["none"], cation: [f"6 {anion}"], anion: [f"6 {cation}"]}
    assert surroundings(Crystal.from_pymatgen(salt)) == expected


def test_oxygen_on_a_metal_leaves_the_metal_its_neighbours():
    """O in a hollow of Al(111): three Al; the Al beneath keep theirs, among them those that O sits on."""
    slab = fcc111("Al", (2, 2, 4), vacuum=8)
    top = slab.positions[slab.positions[:, 2].argmax()]
    slab.append("O")
    slab.positions[-1] = top + np.array([2.8638 / 2, 2.8638 / (2 * 3**0.5), 1.0])
    crystal = periodic(slab)
    shells = neighbour_shells(crystal)
    assert str(shells[-1]) == "3 Al"
    height = crystal.cartesian[:, 2].round(2)
    for layer in np.unique(height[:-1])[1:-1]:
        assert {str(shells[i]) for i in np.flatnonzero(height == layer)} == {"12 Al"}


def test_a_narrower_distance_leaves_one_shell_of_bcc():
    assert coordination_numbers(known("bcc Fe"), distance_cutoff=1.1).tolist() == [8, 8]


def test_neighbours_of_chosen_elements_are_counted():
    apatite = known("SrVO2H")
    strontium = np.array(apatite.symbols) == "Sr"
    for elements, number in ((None, 12), (["O"], 8), (["H"], 4), (["V"], 0)):
        assert coordination_numbers(apatite, neighbours=elements)[strontium].tolist() == [number]


def test_statistics_are_shares():
    found = coordination_statistics([known("NaCl"), known("CsCl")], "Cl")
    assert found == {Shell.of(["Na"] * 6): 0.8, Shell.of(["Cs"] * 8): 0.2}
    with pytest.raises(ValueError, match="no crystal contains Li"):
        coordination_statistics([known("NaCl")], "Li")


def test_atoms_on_top_of_each_other_are_refused():
    with pytest.raises(ValueError, match="Al has two atoms on top of each other, one of them atom 1"):
        neighbour_shells(Crystal(3 * np.eye(3), [[0, 0, 0], [0, 0, 1]], [13, 13]))
