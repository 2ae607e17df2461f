"""The commands of `hostguide`, one file each, named like the command.

A file holds a function of its own name (`second_opinion.py` is `hostguide second-opinion`) or, for a command with
subcommands, a Typer called `app`. `search.cli` finds the files by itself. Here lie the search and what prepares it
(`search`, `validate`, `tune`, `reference`); `runs`, `crystals` and `models` hold the rest, and `common` what several
commands need. PyTorch, pymatgen, pandas and all that imports them are imported inside the functions, so that
`hostguide --help` answers at once.
"""
