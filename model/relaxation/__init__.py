"""Relaxing many crystals at once.

`relax` is the loop and its settings, `state` the crystals in it, `optimizers` FIRE and L-BFGS.
`candidate_funnel` relaxes guests first where that is cheaper.
"""
