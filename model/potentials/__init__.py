"""Energies, forces and stresses.

`catalog` lists the potentials that can be chosen, `interface` says what every potential gives. `ase` wraps any ASE
calculator, `chgnet` is our fast CHGNet.
Import `Potential`, `Evaluation` and `BatchEvaluation` from `interface`.
"""
