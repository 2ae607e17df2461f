"""What a run found, for people and for other programs.

`report` makes the HTML page, `figures` and `plots` draw, `tables` prints, `export` writes crystals for other tools,
`tuning_plots` shows what Optuna tuned.
"""
