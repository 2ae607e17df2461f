"""Space groups: finding them, moving crystals onto them, preserving them.

- `space_group`: groups found by spglib, and crystals symmetrised
- `sites`: the Wyckoff positions of every group
- `action`: which atom an operation maps to which
- `projector`: forces and strains averaged over a group's operations
"""
