"""Thermodynamic stability.

- `reference`: tables of competing phases
- `entries`: competing phases from pymatgen entries and from the Materials Project
- `stability`: decomposition energies against the hull of such a table
- `reference_relaxation`: relaxing the phases of a table
- `own_hull`: the hull of any potential: the known phases of a system, relaxed with it on the spot
- `phase_cache`: what potentials have said about known phases, kept for the user
- `judge`: crystals relaxed with another potential, and their E_d against its own hull
- `candidate_judge`: which crystals of a search are judged, and what is said of them
- `correction`: what a judge said of some crystals, carried over to others
"""

STABLE = 1e-3  # eV/atom above the hull up to which a crystal counts as stable: how far relaxations end apart
