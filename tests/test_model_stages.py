"""The stations of a candidate's way, where no other file tests them."""

import time

import numpy as np

from model.relax import RelaxSettings
from model.screen import ScreenSettings
from model.stages import Rejected, Relaxer


def test_seconds_of_a_batch_add_up_to_its_wall_time(licoo2, lisi, rattle):
    relaxer = Relaxer("chgnet-0.3.0", RelaxSettings(max_steps=3), ScreenSettings())
    fused = lisi.replace(fractional=np.zeros((2, 3)))
    began = time.monotonic()
    outcomes = relaxer.relax([rattle(licoo2, width=0.1), fused, rattle(lisi, width=0.1)])
    elapsed = time.monotonic() - began
    assert isinstance(outcomes[1], Rejected)
    large, small = outcomes[0], outcomes[2]
    assert large.seconds + small.seconds <= elapsed  # each had the whole of it, if they were not shared out
    work = [len(one.initial) * (one.steps + 1) for one in (large, small)]
    np.testing.assert_allclose(large.seconds / small.seconds, work[0] / work[1])
