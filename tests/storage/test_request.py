"""Requests put together in one process."""

import numpy as np

from fourfold.storage import Segment, SegmentedRequest


def test_values_of_ids_are_one_where_a_segment_gives_none() -> None:
    ids = np.array([5, 6], np.int64)
    lengths = np.array([2], np.int32)
    factors = np.array([0.5, 4.0], np.float32)
    plain = Segment(0, ids)

    request = SegmentedRequest.of([plain, Segment(1, ids, lengths, factors, credits=factors + 1)])
    assert request.weights is not None
    assert request.credits is not None
    assert request.weights.tolist() == [1, 1, 0.5, 4]
    assert request.credits.tolist() == [1, 1, 1.5, 5]
    assert request.credits.dtype == np.float32

    nothing = SegmentedRequest.of([plain])
    assert nothing.weights is None
    assert nothing.credits is None
