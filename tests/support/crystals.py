"""Crystals that tests of several files make."""

import numpy as np
from pymatgen.core import Lattice, Structure

from model.crystals.crystal import Crystal


def rattled(crystal: Crystal, seed: int | np.random.Generator = 0, *, width: float, strain: float = 0.0) -> Crystal:
    """Every atom displaced and the cell deformed at random.

    Args:
        crystal: stays as it is.
        seed: or a generator to go on with.
        width: standard deviation of the displacement in each direction, Å.
        strain: standard deviation of each component of the cell's deformation.
    """
    rng = np.random.default_rng(seed)
    lattice = crystal.lattice @ (np.eye(3) + rng.normal(0, strain, (3, 3))) if strain else crystal.lattice
    steps = rng.normal(0, width, (len(crystal), 3))
    return crystal.replace(lattice=lattice, fractional=crystal.fractional + steps @ np.linalg.inv(lattice))


def olivine() -> Crystal:
    """LiFePO4 (Pnma), 28 atoms."""
    species = ["Li", "Fe", "P", "O", "O", "O"]
    sites = [
        [0, 0, 0],
        [0.2822, 0.25, 0.9747],
        [0.0948, 0.25, 0.4182],
        [0.0968, 0.25, 0.7428],
        [0.4571, 0.25, 0.2060],
        [0.1656, 0.0465, 0.2848],
    ]
    return Crystal.from_pymatgen(
        Structure.from_spacegroup("Pnma", Lattice.orthorhombic(10.33, 6.01, 4.69), species, sites)
    )
