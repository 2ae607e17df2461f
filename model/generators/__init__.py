"""The generators that a search chooses between, each with its own module and an entry in `registry`.

- `roles`: what a generator starts from, and the role of what it makes
- `interface`: how a generator proposes a template, how it makes crystals from templates
- `registry`: the list of all generators
- `diffusion`, `random_symmetric`, `ion_substitution`: start from only a cell formula
- `mutation`, `mode`: change a relaxed crystal
- `inpainting`, `symmetric`, `subgroup`: fill a framework with guests

Configuration, planning, validation and tuning use the registry and do not depend on particular generators.
"""
