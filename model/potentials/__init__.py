"""Energies, forces and stresses.

- `interface`: the interface of potentials: `Potential`, `Evaluation`, `BatchEvaluation`
- `catalog`: the potentials that can be chosen by name, and which energies may be compared with theirs
- `ase`: any ASE calculator as a potential
- `chgnet`: CHGNet, batched and fast
- `sevennet`: SevenNet, batched and fast
"""
