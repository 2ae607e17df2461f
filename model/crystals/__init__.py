"""Crystals, and the geometry that needs no energies.

- `crystal`: the one crystal type; conversions to pymatgen and ASE
- `batch`: many crystals as flat tensors
- `lattice`: random cells of every Bravais type
- `composition`: formulas and cells of a chemical system
- `periodic_images`: the nearest image of a vector (minimum image), distances between planes
- `neighbors`: all pairs within a cutoff
- `matching`: whether two crystals are equal, within given tolerances
- `screening`: rejecting crystals before relaxation
- `voids`: the voids of a host
- `parquet`: reading crystals from the user's Parquet files
"""
