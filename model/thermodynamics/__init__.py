"""Thermodynamic stability of crystals.

`reference` reads tables of competing phases, `stability` gives decomposition energies against their hull,
`reference_relaxation` relaxes the phases of such a table.
"""
