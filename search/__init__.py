"""Searches: what to try next, running it, storing it, and showing what came of it.

Each subject has a sub-package, which imports only from those before it in this list:

- `storage`: where results lie
- `config`, `config_file`: the configuration of a search; reading it from YAML
- `planning`: what to try next
- `running`: which task goes to which actor, and storing what comes back
- `dft`: VASP inputs and results
- `benchmark`: how often the score model puts guests back
- `studies`: work on single crystals and finished runs
- `reporting`: report, figures, tables, export
- `commands`: the command line, which `cli` assembles
"""
