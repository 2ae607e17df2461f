"""Handing crystals to DFT and taking the results back.

- `inputs`: VASP inputs
- `results`: finished calculations, corrected and judged
"""
