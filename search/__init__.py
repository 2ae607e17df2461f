"""Searches: planning, running, storing and presenting them.

Each subject has a sub-package, which imports only from those before it in this list:

- `storage`: results on disk or in an object store
- `config`, `compositions`, `config_file`: the configuration of a search; what it searches; reading it from YAML
- `questions`: a configuration made from a question on the command line
- `planning`: deciding what to try next
- `running`: distributing tasks to actors and storing their results
- `dft`: VASP inputs and results
- `benchmark`: how often the score model recovers removed guests
- `studies`: studies of single crystals and finished runs
- `electrodes`: screening hosts for ions
- `reporting`: report, figures, tables, export
- `agents`: the tools that agents are offered
- `api`: five calls for scripts and notebooks
- `commands`: the command line, which `cli` assembles
"""
