"""The minimum cut is SciPy's maximum flow, and it does cut."""

import numpy as np
import pytest

from keras_cascade.graph.min_cut import INFINITE, Pipes

csgraph = pytest.importorskip("scipy.sparse.csgraph")
sparse = pytest.importorskip("scipy.sparse")


@pytest.mark.parametrize("seed", range(25))
def test_it_costs_what_the_greatest_flow_is(seed):
    draw = np.random.default_rng(seed)
    size = int(draw.integers(2, 14))
    capacities = draw.integers(0, 20, (size, size))
    capacities[draw.uniform(size=(size, size)) < 0.6] = 0
    np.fill_diagonal(capacities, 0)
    pipes = Pipes()
    pipes.add(0, size - 1, 0)
    for start, end in np.argwhere(capacities):
        pipes.add(int(start), int(end), int(capacities[start, end]))
    cost, before = pipes.cut(0, size - 1)
    graph = sparse.csr_matrix(capacities.astype(np.int32))
    assert cost == csgraph.maximum_flow(graph, 0, size - 1).flow_value
    assert 0 in before and size - 1 not in before
    crossing = [
        capacities[a, b] for a in before for b in range(size) if b not in before
    ]
    assert sum(crossing) == cost


def test_of_equal_cuts_it_is_the_one_near_the_source():
    pipes = Pipes()
    for start, end in ("sa", "ab", "bt"):
        pipes.add(start, end, 3)
    assert pipes.cut("s", "t") == (3, {"s"})


def test_what_is_infinite_is_not_cut():
    pipes = Pipes()
    pipes.add("s", "a", INFINITE)
    pipes.add("a", "t", 7)
    assert pipes.cut("s", "t") == (7, {"s", "a"})
