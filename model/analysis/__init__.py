"""Properties of crystals beyond their energy.

- `radial`: radial distribution functions
- `coordination`: which atoms surround an atom
- `voltage`: voltage curves
- `electrode`: guests by charge, capacities, average voltages, whether a host is kept
- `migration`: migration paths of guests, and their barriers
"""
