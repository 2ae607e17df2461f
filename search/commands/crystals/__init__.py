"""Work on crystal files.

- `inpaint`: place guests into a host
- `relax`: relax crystals
- `evaluate`: energies, forces and stresses without relaxation
- `analyse`: properties of a crystal, or of the best crystals of a run
"""
