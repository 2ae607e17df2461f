"""Storage of results on disk or in an object store.

- `paths`: one interface for folders and object stores
- `lock`: prevents two searches from using the same run
- `rows`: the columns of the results (`Row`, `HistoryRow`, `PendingRow`), with types and units
- `results`: the table of all candidates, in one file per task
- `ranking`: the best candidates, each distinct crystal once
- `cif`: writing crystals as CIF
- `crystal_files`: reading crystals from CIF, POSCAR, extxyz and all other formats of pymatgen and ASE
"""
