"""Crystals and physics. Nothing here needs Ray, a run or a configuration file.

Each subject has a sub-package, which imports only from those before it in this list:

- `crystals`: what a crystal is, and geometry
- `symmetry`: space groups
- `potentials`: energies, forces and stresses
- `diffusion`: the score model
- `relaxation`: relaxing many crystals at once
- `generation`: crystals made without the score model, frameworks, guests on symmetric sites
- `generators`: the ways to make candidates that a search chooses between
- `thermodynamics`: competing phases, hull, decomposition energy
- `analysis`: properties of crystals beyond their energy

On top stands `model.stages`: generate, relax and analyse, the three calls that actors make. `model.settings` is the
base of all settings, `model.reasons` has the codes that say why a candidate is not relaxed, `model.files` the package's
data (`model/data`) and atomic writes.
"""
