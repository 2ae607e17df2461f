"""What a crystal is, and geometry that needs no energy.

`crystal` has the one crystal type, `batch` many crystals as flat tensors. `neighbors` and `periodic_images` measure
distances across cell boundaries, `matching` tells equal crystals, `screening` refuses hopeless ones, `voids` finds
holes. `lattice` and `composition` sample cells and enumerate formulas, `parquet` reads tables of crystals.
"""
