"""Crystals and physics. Nothing here needs Ray, a run or a configuration file.

Each subject has a sub-package, which imports only from those before it in this list:

- `crystals`: what a crystal is, and geometry
- `symmetry`: space groups
- `library`: the known phases with their crystals
- `potentials`: energies, forces and stresses
- `diffusion`: the score model
- `relaxation`: relaxing many crystals at once
- `generation`: crystals made without the score model, frameworks, guests on symmetric sites
- `generators`: the ways to make candidates that a search chooses between
- `thermodynamics`: competing phases, hull, decomposition energy
- `analysis`: properties of crystals beyond their energy
- `verification`: what is asked of a crystal before DFT: known, charges, phonons, patterns, a verdict

`model.stages` is on top: generate, relax and analyse, the three calls that actors make. `model.settings` is the base
class of all settings, `model.reasons` lists the codes for why a candidate is not relaxed, and `model.files` handles the
package's data (`model/data`), atomic writes and file locks.
"""
