"""One file per command of the command line, named like the command."""
