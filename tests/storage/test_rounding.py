"""A product joins a sum in one rounding, at every width: the source says so, not the compiler."""

import numpy as np
import pytest

from fourfold.storage import SGD, Constant, Pad, RowSpec, Segment, SegmentedRequest

NEAR_ONE = np.float32(1 + 2**-12)
SQUARE = np.float32(1 + 2**-11)  # of NEAR_ONE, rounded: what is lost is 2^-24
LOST = np.float32(2**-24)
DIMS = [1, 2, 3, 4, 5, 8, 12, 16, 20, 24, 31, 32, 64, 100, 128, 256]


@pytest.mark.parametrize("dim", DIMS)
def test_weighted_sums(dim: int) -> None:
    """Of a bag, and of a row's gradients: NEAR_ONE * NEAR_ONE - SQUARE."""
    init = Constant(0.0)
    pad = Pad([RowSpec(table=0, name="t", dim=dim, rows=3, optimizer=SGD(), init=init, seed=0)])
    records = np.zeros(2, pad.specs[0].record)
    records["weights"] = np.array([[-SQUARE], [NEAR_ONE]])
    pad.write(0, np.array([0, 1]), records)
    bag = Segment(0, np.array([0, 1]), np.array([2], np.int32), np.array([1, NEAR_ONE], np.float32))
    twice = Segment(
        0, np.array([2, 2]), np.array([1, 1], np.int32), np.array([1, NEAR_ONE], np.float32)
    )
    request = SegmentedRequest.of([bag, twice])
    ticket = pad.plan(request, train=True)
    replies = [np.empty((1, dim), np.float32), np.empty((2, dim), np.float32)]
    pad.gather(ticket, request.addresses(replies), "fp32")
    gradient = np.repeat(np.array([[-SQUARE], [NEAR_ONE]]), dim, axis=1)
    gradients = [np.zeros((1, dim), np.float32), gradient]
    pad.update(ticket, request.addresses(gradients), "fp32", 1.0, 1)
    pad.release(ticket)

    assert (replies[0] == LOST).all()
    assert (pad.weights(0, np.array([2])) == -LOST).all()


@pytest.mark.parametrize("dim", DIMS)
def test_the_step_of_sgd(dim: int) -> None:
    init = Constant(float(SQUARE))
    pad = Pad([RowSpec(table=0, name="t", dim=dim, rows=1, optimizer=SGD(), init=init, seed=0)])
    request = SegmentedRequest.of([Segment(0, np.array([0]))])
    ticket = pad.plan(request, train=True)
    gradient = np.full((1, dim), NEAR_ONE)
    pad.update(ticket, request.addresses([gradient]), "fp32", float(NEAR_ONE), 1)
    pad.release(ticket)

    assert (pad.weights(0, np.array([0])) == -LOST).all()
