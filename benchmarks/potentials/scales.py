"""Are the corrected energies of a potential on the scale of the Materials Project, for every class of compounds?

    python benchmarks/potentials/scales.py --potential 7net-l3i5

CHGNet 0.3.0 was trained on the corrected energies of the Materials Project. So the energies of another potential, with
the corrections of MP2020 added, must agree with CHGNet's within the errors of the two, and no class of compounds may be
off as a whole. Crystals are known phases at the database's geometry; each class is a random sample of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import numpy as np
import torch
from pymatgen.analysis.structure_analyzer import oxide_type
from pymatgen.core import Composition

from model.crystals.crystal import Crystal
from model.library.phases import Phase, packaged_library
from model.potentials.catalog import DEFAULT, load_potential
from model.potentials.corrections import hubbard_u, mp2020_correction

KINDS = ("AB", "AB2", "AB3", "A2B3", "A3B4", "A2B5", "ABC", "ABC2", "ABC3", "ABC4", "A2BC3", "A2BC4")
Test = Callable[[Composition, Phase], bool]


def anion(composition: Composition) -> str:
    return max(composition.elements, key=lambda element: element.X).symbol


def with_metal(composition: Composition) -> bool:
    return any(element.is_metal for element in composition.elements)


def kind_of_oxygen(phase: Phase) -> str:
    return str(oxide_type(phase.crystal.to_pymatgen()))


def plain(symbols: str) -> Test:
    names = symbols.split()
    return lambda made, phase: anion(made) in names and with_metal(made) and not hubbard_u(made)


CLASSES: dict[str, Test] = {
    "oxides": lambda made, phase: plain("O")(made, phase) and kind_of_oxygen(phase) == "oxide",
    "peroxides, superoxides": lambda made, phase: (
        plain("O")(made, phase) and len(made) < 4 and kind_of_oxygen(phase) in ("peroxide", "superoxide")
    ),
    "sulphides": plain("S"),
    "selenides, tellurides": plain("Se Te"),
    "fluorides": plain("F"),
    "chlorides, bromides, iodides": plain("Cl Br I"),
    "hydrides": plain("H"),
    "nitrides": plain("N"),
    "antimonides, silicides": plain("Sb Si"),
    "oxides with a Hubbard U": lambda made, phase: anion(made) == "O" and bool(hubbard_u(made)),
    "fluorides with a Hubbard U": lambda made, phase: anion(made) == "F" and bool(hubbard_u(made)),
    "metals": lambda made, phase: all(element.is_metal for element in made.elements),
}


def sample(test: Test, count: int, max_atoms: int, seed: int = 0) -> Iterator[Crystal]:
    """Random phases of a class."""
    library, left = packaged_library(), count
    phases = [phase for kind in KINDS for phase in library.of_stoichiometry(kind)]
    for index in np.random.default_rng(seed).permutation(len(phases)):
        phase = phases[index]
        made = Composition(phase.formula)
        if left and phase.n_atoms <= max_atoms and 1 < len(made) < 5 and test(made, phase):
            left -= 1
            yield phase.crystal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--potential", default="7net-l3i5")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--max-atoms", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    first, other = load_potential(DEFAULT), load_potential(options.potential)
    print(f"| class | phases | corrections added | {options.potential} − {DEFAULT}, mean | standard deviation |")
    print("|---|---|---|---|---|")
    for name, test in CLASSES.items():
        crystals = list(sample(test, options.count, options.max_atoms))
        energies = [[one.energy for one in potential.evaluate(crystals)] for potential in (first, other)]
        apart = 1e3 * (np.array(energies[1]) - np.array(energies[0]))
        added = 1e3 * np.mean([mp2020_correction(crystal) for crystal in crystals])
        print(f"| {name} | {len(crystals)} | {added:.0f} | {apart.mean():+.0f} | {apart.std():.0f} |", flush=True)


if __name__ == "__main__":
    main()
