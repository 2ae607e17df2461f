"""What to try next. Deterministic: no clock, no Ray.

- `campaign`: what all rounds of a search share: its cells, its hosts, the seed of everything random
- `history`: what the stored candidates say: which are new, what is rewarded, when to stop
- `frameworks`: the distinct frameworks, and what may be put into them
- `policy`: which way to spend work is picked, and why
- `round_plan`: one round: ways to spend work, picks, tasks
- `tasks`: what a round consists of: candidates, in tasks
- `tuning`: settings suggested by Optuna
- `planner`: all this as an actor
- `prepare`: what a configuration needs before it can run: reference, volumes, versions
"""
