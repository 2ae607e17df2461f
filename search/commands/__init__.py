"""The commands of `hostguide`, one file each, named like the command.

A file defines a function of the same name (`judge.py` is `hostguide judge`) or, for a command with
subcommands, a Typer called `app`. `search.cli` finds the files automatically, also in sub-folders:

- here: `search`, `screen`, `init`, `validate`, `tune`, `judge`, `reference`, `schema` and `mcp`; `common` is shared by
  several
- `runs`: commands that use the results of a search or a screen
- `crystals`: commands that take crystal files
- `models`: commands for score models

PyTorch, pymatgen, pandas and modules that import them are imported inside functions, so that `hostguide --help` is
fast.
"""
