"""Searches: what to try next, running it, storing it, and showing what came of it.

Rooms, each using only those before it: `storage`; then `config`, the whole configuration of a search, which
`config_file` reads from YAML; `planning`; `running`; `dft`, `studies` and `benchmark`; `reporting`; `commands`.
`search.cli` assembles the command line.
"""
