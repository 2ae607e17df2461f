"""Ray, and nothing but Ray: pools of actors, the cluster they run on, their metrics.

`workers` wraps the three stages of `model.stages`, `pool` keeps actors busy, `cluster` connects to Ray, `metrics`
reports to its dashboard, `training` trains on several devices. No other package imports Ray.
"""
