"""Properties of crystals beyond their energy.

- `environments`: coordination numbers and radial distribution functions
- `voltage`: voltage curves
- `migration`: migration paths of guests, and their barriers
"""
