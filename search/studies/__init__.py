"""Work on single crystals and finished runs, as functions: each has a command in `search.commands`.

`inpaint` puts guests into one host, `guest_uptake` fills a framework from empty to full, `analyse` looks for paths and
voltages, `second_opinion` asks another potential, `tuning_search` tries settings, `training_data` makes data for the
score model, `training` reads the configuration of its training and draws the curves.
"""
