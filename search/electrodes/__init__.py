"""Electrodes: which hosts take up which ions, at what voltage, and how the host changes.

- `config`: the configuration of a screen
- `hosts`: its hosts, from files, tables, the library of known phases and chemical systems
- `filling`: filling one host with a number of guests
- `screener`: one host with one ion: what is given up, the contents from empty to full, their rows
- `actors`: the same as a Ray actor
- `driver`: running a screen on Ray
- `rows`: the columns of the results
- `store`: storing and reading them
- `curves`: from rows to voltage curves and capacities
- `output`: CSV, Parquet and CIF files
- `benchmark`: hosts whose filled crystals and voltages are known
- `summary`: statistics of the benchmark
"""
