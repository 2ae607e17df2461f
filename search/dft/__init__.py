"""DFT calculations of crystals.

- `inputs`: writing VASP inputs
- `results`: reading finished calculations, with corrections and E_d
"""
