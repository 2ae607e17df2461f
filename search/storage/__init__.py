"""Storage of results on disk or in an object store.

- `paths`: folders and object stores, opened alike
- `lock`: no two searches in one run
- `rows`: the columns of the results (`Row`, `HistoryRow`, `PendingRow`), with types and units
- `results`: the table of all candidates, in one file per task
- `ranking`: the best of it, each crystal once
- `cif`: crystals written as CIF
- `crystal_files`: crystals read from CIF, POSCAR, extxyz and whatever else pymatgen or ASE reads
"""
