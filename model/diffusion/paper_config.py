"""Shape of the papers' score network; apart from the network, whose libraries take a second to import."""

from __future__ import annotations

from typing import Literal

from model.settings import Settings


class PaperNetworkConfig(Settings):
    """Shape of the papers' network; the defaults are Table 2 of the ICML paper."""

    kind: Literal["paper"] = "paper"
    layers: int = 4  # convolutions
    cutoff: float = 6.0  # Å
    node: str = "32x0e"  # h_x before the first interaction
    auxiliary: str = "32x0e"  # h_z, the same in every layer
    hidden: str = "32x0e + 32x1e"  # h_x after each interaction
    edge: str = "32x0e + 32x1e + 8x2e"  # spherical harmonics, repeated
    bessel: int = 16  # radial basis functions
    radial_hidden: int = 64  # neurons of the radial network
    neighbours: float = 12.0  # 1/Z of eq. 10 is 1/sqrt(neighbours); 12 in the published code
