"""The ways to make candidates that a search chooses between: one module and one row of `registry` each.

- `interface`: what a generator is: what it starts from, how it proposes a template, how it makes crystals of templates
- `registry`: the list of all
- `diffusion`, `random_symmetric`, `ion_substitution`: start from nothing but a cell formula
- `mutation`: changes a relaxed crystal
- `inpainting`, `symmetric`, `subgroup`: fill a framework with guests

The configuration, planning, validation and tuning read the registry and know no generator by name.
"""
