"""Relaxing many crystals at once.

`relax` is the loop and its settings, `state` the crystals in it, `coordinates` the generalised coordinates and forces
of atoms and cell, `optimizers` FIRE and L-BFGS. `candidate_funnel` relaxes fewer candidates in full, chosen by cheaper
steps.
"""
