"""Properties of crystals beyond their energy.

`environments` has coordination numbers and radial distributions, `voltage` voltage curves, `migration` the paths of
guests and their barriers.
"""
