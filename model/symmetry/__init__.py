"""Space groups: finding them, moving crystals onto them, keeping them.

`space_group` finds groups by spglib and symmetrises crystals, `wyckoff` and `sites` know the positions of every group,
`projector` averages forces and strains over a group's operations, `action` says which atom an operation moves where.
"""
