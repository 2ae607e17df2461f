"""Crystals, and the geometry that needs no energies.

`crystal` has the crystal type, `batch` many crystals as flat tensors. `neighbors` and `periodic_images` measure
distances across cell boundaries, `matching` recognises equal crystals, `screening` rejects those not worth relaxing,
`voids` finds voids. `lattice` samples cells, `composition` enumerates formulas, `parquet` reads tables of crystals.
"""
