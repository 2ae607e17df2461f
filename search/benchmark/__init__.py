"""The reconstruction benchmark: how often the score model recovers removed guests.

- `run`: the benchmark, from a file of crystals to a file of statistics
- `reconstruct`: one case
- `methods`: methods of placing guests, by name
- `residuals`: ranking attempts with the score model itself
- `training_hosts`: which hosts the score model has seen
- `log`: finished cases, so that a benchmark can resume
- `summary`: match rates
"""
