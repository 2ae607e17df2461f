"""Train and test score models.

- `data`: make training data
- `train`: train
- `benchmark`: measure how often removed guests are recovered
"""
