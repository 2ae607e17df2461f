"""Work on crystal files.

- `inpaint`: place guests into a host
- `relax`: relax crystals
- `evaluate`: energies, forces and stresses without relaxation
- `verify`: what is known of crystals, and one verdict
- `analyse`: properties of a crystal, or of the best crystals of a run
"""
