"""Everything that depends on Ray. No other package imports it.

- `workers`: the three stages of `model.stages`, and the verifier, as actors
- `each`: one call for each of many jobs
- `pool`: identical actors, their calls with time limits, and replacing actors that die
- `cluster`: starting or joining Ray
- `metrics`: metrics for Ray's dashboard
- `training`: training on several devices
"""
