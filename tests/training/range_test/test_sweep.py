"""Compares the schedule of a range test with powers by hand."""

import numpy as np

from keras_cascade.training.range_test.sweep import Sweep


def test_the_schedule_reports_the_rates_it_gives():
    sweep = Sweep(1e-3, 1e1, 5, every=2)
    found = [float(sweep(step)) for step in range(12)]
    expected = np.repeat([1e-3, 1e-2, 1e-1, 1.0, 10.0, 10.0], 2)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found[::2][:5] == sweep.rates.tolist()
    again = Sweep.from_config(sweep.get_config())
    assert float(again(3)) == found[3]
