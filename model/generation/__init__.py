"""Making candidates, with the score model or without, and the frameworks that guests go into.

`random_crystal`, `ion_substitution` and `mutation` make crystals without a network. `framework` takes guests out and
symmetrises what remains, `wyckoff_placement` puts them on its orbits, `initial_placements` offers baselines, `disorder`
orders partially occupied sites.
"""
