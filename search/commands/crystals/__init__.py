"""Work on crystal files.

- `inpaint`: put guests into a host
- `relax`: relax crystals
- `evaluate`: energies, forces and stresses of crystals as they are
- `analyse`: properties of a crystal, or of the best crystals of a run
"""
