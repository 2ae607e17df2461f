"""Relaxing many crystals at once.

- `relax`: the loop, its settings, and when a relaxation ends
- `state`: the crystals in the loop
- `coordinates`: generalised coordinates and forces of atoms and cell
- `optimizers`: FIRE and L-BFGS
- `polish`: what is done to crystals that are reported
- `candidate_funnel`: relaxing all candidates roughly, and only the best ones in full
"""
