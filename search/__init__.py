"""Searches: what to try next, running it, storing it, and showing what came of it.

Rooms, each using only those before it: `storage`; `planning` (with `search.config`, the whole YAML); `running`;
`dft`, `studies` and `benchmark`; `reporting`; `commands`. `search.cli` assembles the command line.
"""
