"""Inputs of the dense model and what is read of it, on whatever device torch has."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fourfold.runtime.data.batch import Batch
from fourfold.runtime.reading import Reading
from fourfold.runtime.tensors import shared
from fourfold.runtime.upload import Upload

DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()


def batch() -> Batch:
    """Two samples, three features with 2, 3 and 2 ids."""
    return Batch(
        dense=np.arange(6, dtype=np.float32).reshape(2, 3),
        label=np.array([0, 1], np.float32),
        ids=np.arange(7),
        offsets=np.array([0, 2, 2, 3, 5, 6, 7]),
        weights=None,
    )


@pytest.mark.parametrize("device", DEVICES)
def test_inputs_are_the_batch_on_the_device(device: str) -> None:
    made = Upload(torch.device(device), unpooled=(1, 2))(batch()).take()

    assert made.dense.device.type == made.label.device.type == device
    assert made.dense.dtype == made.label.dtype == torch.float32
    assert made.dense.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert made.label.tolist() == [0, 1]
    assert [o.tolist() for o in made.offsets] == [[0, 1, 3], [0, 1, 2]]


@pytest.mark.parametrize("device", DEVICES)
def test_a_batch_without_samples_has_inputs(device: str) -> None:
    empty = Batch(np.empty((0, 3), np.float32), np.empty(0, np.float32), np.empty(0, np.int64),
                  np.zeros(1, np.int64), None)  # fmt: skip
    made = Upload(torch.device(device), unpooled=(0,))(empty).take()

    assert made.dense.shape == (0, 3)
    assert made.offsets[0].tolist() == [0]


def test_on_a_cpu_nothing_is_copied() -> None:
    given = batch()
    made = Upload(torch.device("cpu"))(given)

    assert np.shares_memory(made.dense.numpy(), given.dense)
    assert np.shares_memory(made.label.numpy(), given.label)
    assert made.copied is None


@pytest.mark.parametrize("device", DEVICES)
def test_a_reading_has_the_values_of_its_moment(device: str) -> None:
    tensor = torch.arange(4.0, device=device)
    kept = Reading(tensor.sum())
    whole = Reading(tensor)
    if device == "cuda":
        tensor.zero_()

    assert kept.wait().item() == 6
    assert whole.wait().tolist() == [0, 1, 2, 3]
    assert whole.arrived
    assert whole.late == (device == "cuda")


def test_tensors_cross_as_arrays_of_the_same_memory() -> None:
    tensor = torch.zeros(3, 4)[:, 1:]
    shared(tensor)[2, 2] = 7
    half = torch.ones(2, dtype=torch.bfloat16)

    assert tensor[2, 2] == 7
    assert shared(half).dtype == np.uint16
    assert shared(half).tolist() == [0x3F80, 0x3F80]
