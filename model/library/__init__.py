"""The library of known phases: the crystals of the Materials Project near the hull, in the package.

- `phases`: reading it: by identifier, chemical system, formula and stoichiometry
- `build`: making its file
"""
