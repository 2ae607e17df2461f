"""Thermodynamic stability.

- `reference`: tables of competing phases
- `stability`: decomposition energies against the hull of such a table
- `reference_relaxation`: relaxing the phases of a table
"""
