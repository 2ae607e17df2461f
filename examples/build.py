"""The crystals of docs/superionic.md and docs/interface.md from published lattice parameters.

python examples/build.py --out examples
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from pymatgen.core import Lattice, Structure

LI2O = 4.619  # Å, antifluorite
LI_VOLUME = 20.5  # Å³ an atom of bcc Li
GAP = 2.0  # Å between the last layer of one crystal and the first of the other


def lanthanum_chloride() -> Structure:
    """LaCl3, P6_3/m (B. Morosin, J. Chem. Phys. 49, 3007 (1968))."""
    return Structure.from_spacegroup(
        "P6_3/m", Lattice.hexagonal(7.478, 4.375), ["La", "Cl"], [[1 / 3, 2 / 3, 1 / 4], [0.387, 0.302, 1 / 4]]
    )


def with_vacancy() -> Structure:
    """LaCl3 in three cells along c, one La of six taken out: with 3 Li the charges balance."""
    crystal = lanthanum_chloride() * [1, 1, 3]
    crystal.remove_sites([next(i for i, site in enumerate(crystal) if site.specie.symbol == "La")])
    return crystal


def lithium_on_oxide() -> Structure:
    """Li2O (001) and Li (001) in one cell, Li strained onto the oxide at its own volume, stacked without a thought.

    Seven layers of Li2O, Li outermost, and five of Li; two interfaces, as the cell is periodic. The edge is that of the
    cubic cell of Li2O, which holds two Li a layer of the metal.
    """
    corner = np.array([[0.0, 0.0], [0.5, 0.5]])
    shifted = np.array([[0.5, 0.0], [0.0, 0.5]])
    four = np.array([[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]])
    oxide = [("Li", four), ("O", corner), ("Li", four), ("O", shifted), ("Li", four), ("O", corner), ("Li", four)]
    metal = [("Li", corner if layer % 2 else shifted) for layer in range(5)]
    steps = [LI2O / 4] * 6 + [GAP] + [2 * LI_VOLUME / LI2O**2] * 4 + [GAP]
    height = np.cumsum([0.0, *steps])
    species, places = [], []
    for (element, flat), z in zip([*oxide, *metal], height[:-1], strict=True):
        species += [element] * len(flat)
        places += [[x, y, z / height[-1]] for x, y in flat]
    return Structure(Lattice.tetragonal(LI2O, float(height[-1])), species, places)


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    out = parser.parse_args().out
    for name, crystal in (
        ("superionic/LaCl3.cif", lanthanum_chloride()),
        ("superionic/La5Cl18.cif", with_vacancy()),
        ("interface/Li-Li2O.cif", lithium_on_oxide()),
    ):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        crystal.to(out / name)
        print(f"{out / name}: {crystal.composition.reduced_formula}, {len(crystal)} atoms")


if __name__ == "__main__":
    main()
