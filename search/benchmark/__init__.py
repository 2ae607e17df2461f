"""How often the score model puts guests back where they were.

`reconstruct` runs the benchmark, `methods` are the ways to place guests, `residuals` ranks attempts by the model,
`log` keeps what is done, `summary` counts, `training_hosts` knows which hosts the model has seen.
"""
