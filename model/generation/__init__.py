"""Candidates made without a network, frameworks for guests, and where guests start.

`random_crystal`, `ion_substitution` and `mutation` make crystals without a network. `framework` removes guests and
symmetrises the host, `wyckoff_placement` puts guests on orbits of its group, `initial_placements` puts them at random
or in voids, `disorder` orders partially occupied sites.
"""
