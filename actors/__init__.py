"""Ray, and nothing but Ray. No other package imports it.

- `workers`: the three stages of `model.stages` as actors
- `pool`: equal actors, their calls with deadlines, and what to do when one dies
- `cluster`: starting or joining Ray
- `metrics`: figures for Ray's dashboard
- `training`: training on several devices
"""
