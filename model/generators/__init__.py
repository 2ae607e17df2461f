"""The generators that compete in a search: one module and one row of `registry` each.

`interface` says what a generator is; `registry` lists them. `diffusion`, `random_symmetric` and `ion_substitution`
begin with nothing but a cell formula, `mutation` changes a relaxed crystal, `inpainting`, `symmetric` and `subgroup`
fill a framework. Configuration, planning, validation and tuning read the registry, and know no generator by name.
"""
