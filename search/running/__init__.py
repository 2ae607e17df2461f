"""Keeping actors busy and storing what they return.

`driver` is the loop, `steps` names what it goes through. `actor_pools` says how many actors there are, `pipeline` turns
their answers into rows, `rounds`, `journal` and `writer` keep order on disk, `progress` and `statistics` tell the user.
"""
