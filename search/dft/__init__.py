"""DFT calculations of crystals.

- `inputs`: writing VASP inputs
- `results`: reading finished calculations, with corrections and E_d
"""

FILE = "dft.parquet"  # in the folder of a run: the results of its calculations
