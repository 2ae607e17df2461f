"""The commands of `hostguide`, one file each, named like the command.

A file holds a function of its own name (`second_opinion.py` is `hostguide second-opinion`) or, for a command with
subcommands, a Typer called `app`. `search.cli` finds the files by itself, in sub-folders too:

- here: `search`, `validate`, `tune` and `reference`; `common` has what several commands need
- `runs`: commands that use the results of a search
- `crystals`: commands that take crystal files
- `models`: commands for score models

PyTorch, pymatgen, pandas and all that imports them are imported inside the functions, so that `hostguide --help`
answers at once.
"""
