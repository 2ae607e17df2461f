"""What to try next. Deterministic: no clock, no Ray.

`campaign` is what all rounds share, `round_plan` plans one, `policy` chooses among ways to spend work, `tasks` holds
what a round consists of. `history` is what stored candidates say, `frameworks` the hosts that compete, `tuning` asks
Optuna for settings. `planner` plans in a process of its own. `prepare` loads what a configuration needs before it can
run.
"""
