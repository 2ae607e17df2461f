"""Space groups: finding them, moving crystals onto them, preserving them.

`space_group` finds groups by spglib and symmetrises crystals, `sites` has the Wyckoff positions of every group,
`projector` averages forces and strains over a group's operations, `action` tells which atom an operation maps to which.
"""
