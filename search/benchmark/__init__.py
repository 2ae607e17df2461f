"""The benchmarks: how often the score model recovers removed guests, and how often a search finds known crystals.

- `run`: the benchmark, from a file of crystals to a file of statistics
- `reconstruct`: one case
- `methods`: methods of placing guests, by name
- `residuals`: ranking attempts with the score model itself
- `training_hosts`: which hosts the score model has seen
- `log`: finished cases, so that a benchmark can resume
- `summary`: match rates
- `csp`: the benchmark of crystal structure prediction, from targets to a file of statistics
- `csp_targets`: its targets
- `timed_search`: a search in one process whose CPU seconds are counted
"""
