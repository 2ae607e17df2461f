"""Use the results of a search.

- `results`: list the best crystals
- `status`: what a search does, from another terminal
- `report`: one HTML page
- `plot`: figures for papers
- `export`: crystals for other tools
- `dft`: write VASP inputs, read the calculations
"""
