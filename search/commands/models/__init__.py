"""Train and test score models.

`data` prepares training data, `train` trains, `benchmark` measures how well guests are put back.
"""
