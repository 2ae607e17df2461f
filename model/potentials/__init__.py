"""Energies, forces and stresses.

- `interface`: the interface of potentials: `Potential`, `Evaluation`, `BatchEvaluation`
- `catalog`: the potentials that can be chosen by name, and which energies may be compared with theirs
- `energies`: what energies a potential was trained on, and their level of theory
- `corrections`: the corrections of MP2020 for potentials without them
- `calculators`: an ASE calculator as a configuration names it
- `ase`: any ASE calculator as a potential
- `chgnet`: CHGNet, batched and fast
- `sevennet`: SevenNet, batched and fast
"""
