"""Crystals and physics. Nothing here needs Ray, a run or a configuration file.

Rooms, each using only those before it: `crystals`, `symmetry`, `potentials` and `diffusion`, `relaxation` and
`generation`, `generators`, `thermodynamics`, `analysis`. On top stands `model.stages`: generate, relax and analyse, the
three calls that actors make. `model.settings` is the base of all settings, `model.reasons` has the codes that say why a
candidate is not relaxed, `model.files` finds the package's data and writes files whole.
"""
