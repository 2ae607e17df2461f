"""Elastic constants from small strains: whether a crystal resists all of them, and its bulk modulus."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase.units import GPa

from model.crystals.crystal import Crystal
from model.potentials.interface import Potential
from model.relaxation.relax import RelaxSettings, may_be_ranked, relax

STRAIN = 0.005
VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
RELAX = RelaxSettings(cell="fixed", fmax=0.005, max_steps=200)


@dataclass(frozen=True, eq=False, kw_only=True)
class Elastic:
    """The elastic constants of a crystal.

    Attributes:
        constants: (6, 6) GPa, symmetric, in Voigt's order xx, yy, zz, yz, xz, xy, atoms relaxed.
        bulk_modulus: GPa, mean of Voigt's and Reuss's; Voigt's if the crystal is not stable.
        stable: whether all eigenvalues of the constants are positive (M. Born).
    """

    constants: np.ndarray
    bulk_modulus: float
    stable: bool


def elastic_constants(crystal: Crystal, potential: Potential) -> Elastic:
    """Elastic constants by central differences of the stress, the atoms relaxed in each strained cell.

    Args:
        crystal: relaxed.
        potential: gives forces and stresses.

    Raises:
        ValueError: a strained crystal cannot be relaxed or evaluated.
    """
    strained = [_strained(crystal, row, way * STRAIN) for row in range(6) for way in (1, -1)]
    relaxed = relax(strained, potential, RELAX)
    bad = next((one for one in relaxed if not may_be_ranked(one)), None)
    if bad is not None:
        raise ValueError(f"a strained cell cannot be relaxed: {bad.detail or bad.reason}")
    found = potential.evaluate([one.final for one in relaxed])
    stresses = np.array([[one.stress[i, j] for i, j in VOIGT] for one in found])
    constants = (stresses[::2] - stresses[1::2]) / (2 * STRAIN) / GPa
    constants = (constants + constants.T) / 2
    stable = bool(np.linalg.eigvalsh(constants).min() > 0)
    voigt = float(constants[:3, :3].sum() / 9)
    reuss = float(1 / np.linalg.inv(constants)[:3, :3].sum()) if stable else voigt
    return Elastic(constants=constants, bulk_modulus=(voigt + reuss) / 2, stable=stable)


def _strained(crystal: Crystal, row: int, strain: float) -> Crystal:
    """The crystal under one strain of Voigt's, shears as 2ε."""
    i, j = VOIGT[row]
    tensor = np.zeros((3, 3))
    tensor[i, j] = tensor[j, i] = strain if i == j else strain / 2
    return crystal.replace(lattice=crystal.lattice @ (np.eye(3) + tensor))
