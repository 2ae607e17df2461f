"""All generators. To add one, write a module in this folder and add an entry here."""

from __future__ import annotations

from model.generators.diffusion import Diffusion
from model.generators.inpainting import Inpainting
from model.generators.interface import Generator
from model.generators.ion_substitution import IonSubstitution
from model.generators.mode import ModeFollowing
from model.generators.mutation import Mutation
from model.generators.random_symmetric import RandomSymmetric
from model.generators.roles import Start
from model.generators.subgroup import Subgroup
from model.generators.symmetric import Symmetric

_ROWS: tuple[Generator, ...] = (
    Diffusion(),
    RandomSymmetric(),
    IonSubstitution(),
    Mutation(),
    ModeFollowing(),
    Inpainting(),
    Symmetric(),
    Subgroup(),
)
GENERATORS: dict[str, Generator] = {row.name: row for row in _ROWS}  # in the order in which batches are filled


def starting_from(*starts: Start) -> list[str]:
    """Names of the generators that start from one of these."""
    return [name for name, row in GENERATORS.items() if row.start in starts]
