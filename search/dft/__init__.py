"""Handing crystals to DFT and taking the results back: `inputs` writes them, `results` reads them."""
