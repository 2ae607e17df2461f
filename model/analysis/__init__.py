"""Properties of crystals beyond their energy.

- `radial`: radial distribution functions
- `coordination`: which atoms surround an atom
- `voltage`: voltage curves
- `migration`: migration paths of guests, and their barriers
"""
