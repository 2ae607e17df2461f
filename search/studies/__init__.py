"""Studies of single crystals and finished runs, as functions; in brackets, the command that uses them.

- `inpaint`: placing guests into a host (`inpaint`)
- `inpaint_output`: its CIFs, rows and tables
- `insertion`: voltage and insertion energy of what was placed (`inpaint`)
- `crystal_results`: rows and files of crystals that were relaxed or evaluated (`relax`, `evaluate`)
- `crystal_stability`: E_d of such crystals (`relax`, `evaluate`)
- `analyse`: coordination, g(r) and voltages, as tables and figures (`analyse`)
- `guest_paths`: sites of a guest, its migration paths and barriers (`analyse --guest`)
- `guest_uptake`: uptake of a guest by a host or by one framework (`analyse --host`, `--framework`)
- `panel`: crystals judged by other potentials (`judge`)
- `verify`: what is found out about crystals, as records (`verify`)
- `tuning_search`: settings tuned by a search that only tries them (`tune`)
- `training_data`: data for the score model (`data`)
- `training`: the configuration of a training, and its curves (`train`)
"""
