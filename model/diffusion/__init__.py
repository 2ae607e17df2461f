"""The score model: its networks, how it is trained, and how crystals are sampled from it.

`sampler` places atoms by reverse diffusion, free or into a host; `noise` is its schedule. `network` is our score
network, `paper_network` the one of the papers (`paper_config` its shape). `dataset`, `loss` and `train` train either,
`checkpoint` stores weights.
"""
