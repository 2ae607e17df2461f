"""Distributing tasks to actors and storing their results.

- `driver`: the main loop
- `steps`: plan, generate, relax, analyse: the steps of a task
- `actor_pools`: number and devices of the actors of each step
- `pipeline`: making rows from the results of the steps; running the steps in one process
- `rounds`: which round is planned next, and which tasks are open
- `writer`: writing rows in threads
- `signals`: stopping on Ctrl-C or SIGTERM
- `journal`: the log of a run, and failed attempts
- `progress`: progress shown during a search
- `statistics`: the summary at the end of a search
"""
