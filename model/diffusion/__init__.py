"""The score model (the diffusion model): its networks, its training, and sampling from it.

- `sampler`: atoms placed by reverse diffusion, in an empty cell or in a host
- `noise`: noise levels and noised crystals
- `network`: our score network
- `paper_network`: the score network of the papers; `paper_config` has its settings
- `dataset`: training crystals
- `loss`: the training loss
- `train`: the training loop
- `checkpoint`: weights on disk
"""
