"""Work on single crystals and finished runs, as functions. The command in brackets uses them.

- `inpaint`: guests put into one host (`inpaint`)
- `crystal_results`: rows and files of crystals that were relaxed or evaluated (`relax`, `evaluate`)
- `analyse`: coordination, voids, migration paths, voltages (`analyse`)
- `guest_uptake`: one framework filled from empty to full (`analyse --framework`)
- `second_opinion`: the best crystals evaluated by another potential (`second-opinion`)
- `tuning_search`: settings tuned by a search that only tries them (`tune`)
- `training_data`: data for the score model (`data`)
- `training`: the configuration of a training, and its curves (`train`)
"""
