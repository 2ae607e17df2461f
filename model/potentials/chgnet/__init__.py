"""CHGNet with its published weights, rewritten for batches and for symmetric crystals.

- `potential`: the potential itself, for use by other modules
- `network`: energies and their gradients
- `messages`: its gated layers, differentiated by hand
- `orbit_graph`: a symmetric crystal reduced to one atom, bond and angle of each orbit
"""
