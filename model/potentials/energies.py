"""What the energies of a potential are, and so what they may be compared with.

Energies of different functionals differ by electronvolts, and so do GGA energies with and without corrections.
"""

from __future__ import annotations

from enum import StrEnum

MP2020_PBE = "MP2020-corrected PBE"  # GGA and GGA+U of the Materials Project, with the corrections of MP2020
R2SCAN = "r2SCAN"
RAW = ("GGA", "GGA+U", "GGA/GGA+U", "PBE", "PBE+U")  # names that users give to uncorrected energies


class Energies(StrEnum):
    """What a potential was trained on.

    - ``GGA``: raw GGA/GGA+U of the Materials Project, as in MPtrj; the corrections of MP2020 are added here.
    - ``MP2020``: the same with the corrections inside; nothing is added.
    - ``r2SCAN``: r2SCAN, which needs no corrections.
    - ``own``: anything else; comparable only with itself.
    """

    GGA = "GGA"
    MP2020 = "MP2020"
    R2SCAN = "r2SCAN"
    OWN = "own"

    @property
    def level(self) -> str:
        """The level of theory of the energies that hostguide reports; empty for ``own``."""
        return {Energies.R2SCAN: R2SCAN, Energies.OWN: ""}.get(self, MP2020_PBE)

    @property
    def corrections(self) -> str:
        """Which corrections they contain, and where they come from."""
        return {Energies.GGA: "MP2020, added", Energies.MP2020: "MP2020, learned"}.get(self, "none")
