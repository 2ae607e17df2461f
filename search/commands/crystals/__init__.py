"""Work on crystal files.

`inpaint` puts guests into a host, `relax` and `evaluate` run the potential, `analyse` looks into a crystal or the best
crystals of a run.
"""
