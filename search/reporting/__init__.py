"""Presenting the results of a run to the user and to other programs.

- `report`: the HTML page
- `figure_data`: the data of the figures
- `figures`: the interactive figures of the HTML page
- `plots`: the same figures for papers, as PNG, SVG or PDF
- `tables`: tables for the terminal
- `export`: crystals for other tools
- `verification_plots`: plots of verified crystals and of measured patterns
- `verdict_cards`: their cards in the HTML page
- `tuning_plots`: plots of the tuned settings
"""
