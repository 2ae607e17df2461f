"""The reconstruction benchmark: how often the score model recovers removed guests.

- `run`: the benchmark, from a file of crystals to a file of statistics
- `reconstruct`: one case
- `methods`: ways to place guests, by name
- `residuals`: attempts ranked by the score model itself
- `training_hosts`: which hosts the score model has seen
- `log`: finished attempts, so that a run can resume
- `summary`: match rates
"""
