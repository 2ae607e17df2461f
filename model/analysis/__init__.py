"""What a crystal is good for.

`environments` has coordination numbers and radial distributions, `voltage` voltage curves, `migration` the paths of a
guest and their barriers.
"""
