"""Presenting the results of a run to the user and to other programs.

- `report`: the HTML page of a search
- `screen_report`: the HTML page of a screen
- `figure_data`: the data of the figures
- `figures`: the interactive figures of the HTML page
- `plots`: the same figures for papers, as PNG, SVG or PDF
- `tables`: tables for the terminal
- `records`: what commands print with `--json`
- `study_records`: the same, of commands that study crystals, hosts and methods
- `record_base`: what these records have in common
- `export`: crystals for other tools
- `run_view`: runs and crystals in a notebook
- `verification_plots`: plots of verified crystals and of measured patterns
- `verdict_cards`: their cards in the HTML page
- `tuning_plots`: plots of the tuned settings
"""
