"""Use the results of a search.

`results` lists the best crystals, `report` and `plot` draw them, `export` writes them for other tools, `second_opinion`
judges them with another potential, `dft` writes VASP inputs and reads the calculations.
"""
