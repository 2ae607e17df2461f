"""Deciding what to try next. Deterministic: no clock, no Ray.

- `campaign`: what all rounds of a search share: its cells, its hosts, the random seeds
- `history`: results so far: which crystals are new, what is rewarded, when to stop
- `frameworks`: the distinct frameworks and their possible fillings
- `policy`: choosing where to spend computing time
- `round_plan`: planning one round: arms, picks, tasks
- `tasks`: candidates and the tasks they are grouped into
- `tuning`: settings suggested by Optuna
- `planner`: planning as an actor
- `prepare`: preparing a search: reference, volumes, run metadata
"""
