"""CHGNet with its published weights, rewritten for batches and for symmetric crystals.

`potential` is what others import. `network` computes energies and their gradients, `messages` its gated layers,
`orbit_graph` the reduction of a symmetric crystal to one atom, bond and angle of each orbit.
"""
