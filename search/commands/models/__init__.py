"""Train and test score models.

- `data`: make training data
- `train`: train
- `benchmark`: measure how well guests are put back
"""
