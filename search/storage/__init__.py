"""Storage of results on disk or in an object store.

- `paths`: one interface for folders and object stores
- `lock`: prevents two searches from using the same run
- `rows`: the columns of the results (`Row`, `HistoryRow`, `PendingRow`), with types and units
- `results`: the table of all candidates, in one file per task
- `status`: what a search does at the moment
- `judgements`: what other potentials and `hostguide verify` said about the crystals of a run
- `ranking`: the best candidates, each distinct crystal once
- `cif`: writing crystals as CIF
- `crystal_files`: the one reader of crystals from files, used by every command
- `cif_reading`: its part for CIF and magnetic CIF
- `cif_elements`: which elements a site of a CIF holds
- `cif_symmetry`: symmetry operations of a CIF, and the atoms that they make
- `other_formats`: its part for POSCAR, extended XYZ, trajectories and the other formats of pymatgen and ASE
- `pattern_files`: measured powder patterns
- `sites`: sites as a file gives them, and the checks that every format goes through
"""
