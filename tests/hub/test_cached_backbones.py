"""What frozen backbones of KerasHub compute is the same from a cache."""

import numpy as np
import pytest

import keras_cascade as kc
from tests.hub.backbones import BACKBONES, inputs_for, make, values
from tests.hub.test_backbones import MARKS, RENAMED, _fed
from tests.hub.test_backbones import pytestmark as keras_hub_warnings

pytest.importorskip("keras_hub", reason="needs the extra 'hub'")

pytestmark = [
    *keras_hub_warnings,
    pytest.mark.large,
    # What is found to be no function of a single sample: CLIP's head compares
    # those of a batch.
    pytest.mark.filterwarnings("ignore:cache_features:UserWarning"),
]


# A nested network is given a tensor of one rank less than its input has: Keras
# adds an axis, which the flat program does not.
RANK = pytest.mark.xfail(reason="a nested network adds an axis", strict=True)


def _all():
    own = {"StableDiffusion3Backbone": (RANK,), **MARKS}
    return [pytest.param(n, marks=own.get(n, ())) for n in BACKBONES]


@pytest.mark.parametrize("name", _all())
def test_answers_from_a_cache_are_the_same(name):
    backbone = make(name)
    arguments = {"adapters": None, "fusion": None, "preprocess": None}
    if renamed := RENAMED.get(name):
        arguments["inputs"] = {"upstream": renamed}
    cascade = kc.build_cascade(backbone, **arguments)
    data = _fed(name, cascade, backbone, inputs_for(name, backbone))
    expected = values(cascade.predict(data, verbose=0))
    cache = kc.FeatureCache()
    for _ in range(2):
        found = cascade.predict(data, verbose=0, cache_features=cache)
        for one, other in zip(values(found), expected, strict=True):
            # Rounding: the frozen part runs on batches of another size.
            bound = 1e-4 * np.std(other.astype("float64"))
            np.testing.assert_allclose(one, other, rtol=0, atol=bound)
