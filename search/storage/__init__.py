"""Where results lie, on disk or in an object store.

`paths` opens folders and stores alike, `lock` keeps two searches out of one run, `results` is the table of candidates,
`rows` what is in it. `ranking` picks the best of it; `cif` and `crystal_files` write and read crystals.
"""
