"""What a generator starts from, and the role of what it makes; without the libraries that generators need."""

from __future__ import annotations

from enum import StrEnum


class Start(StrEnum):
    """What a generator starts from."""

    NOTHING = "nothing"  # only a cell formula; it makes the lattice and the positions
    CRYSTAL = "crystal"  # a relaxed crystal, which it changes
    HOST = "host"  # a framework, which it fills with guests


class Role(StrEnum):
    """Role of a candidate in a search."""

    NEW = "new"  # made from a cell formula, or by changing a crystal
    FROM_HOST = "from_host"  # guests in a framework
