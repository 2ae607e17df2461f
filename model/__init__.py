"""Crystals and physics. Nothing here needs Ray, a run or a configuration file.

Rooms, each using only those before it: `crystals`, `symmetry`, `potentials` and `diffusion`, `relaxation` and
`generation`, `thermodynamics`, `analysis`. On top stands `model.stages`: generate, relax and analyse, the three calls
that actors make. `model.settings` is the base of all settings, `model.files` finds the package's data, writes files
whole and locks them.
"""
