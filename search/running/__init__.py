"""Which task goes to which actor, and storing what comes back.

- `driver`: the main loop
- `steps`: plan, generate, relax, analyse: the steps of a task
- `actor_pools`: how many actors of each kind there are, and on what
- `pipeline`: results of the steps made into rows; the same steps in one process
- `rounds`: which round is planned next, and which tasks are open
- `writer`: rows written in threads
- `journal`: the log of a run, and attempts that failed
- `progress`: what is shown during a search
- `statistics`: the summary at its end
"""
