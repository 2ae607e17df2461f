"""SevenNet with its published weights, rewritten for batches and for symmetric crystals.

- `potential`: the potential itself, for use by other modules
- `network`: energies and their gradients
- `convolution`: its messages, differentiated by hand
- `radial`: how messages depend on distance, compressed and tabulated
- `harmonics`: spherical harmonics, and how they turn
- `graph`: neighbours, in blocks, to one atom of each orbit
- `weights`: the trained weights, read from the files in the package ``sevenn``
"""
