"""Crystals made without the score model, frameworks for guests, and places where guests start.

- `random_crystal`: random symmetric crystals
- `structure_types`: the types of known phases, and how alike elements are
- `shared_sites`: sites of one element that two others share
- `ion_substitution`: known structure types with other elements
- `known_hosts`: known phases without their guests
- `mutation`: small changes of a crystal
- `framework`: a crystal without its guests, symmetrised
- `wyckoff_placement`: guests on orbits of a host's space group
- `initial_placements`: guests at random or in voids
- `disorder`: partially occupied sites, ordered
"""
