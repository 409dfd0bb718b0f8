"""Rows of embedding tables: where they lie, how they begin, how they are read and updated.

This layer imports nothing of the others. README.md has the layout of rows and the rules of the pad.
"""

from fourfold.storage._native import Ticket
from fourfold.storage.config import StorageConfig
from fourfold.storage.errors import BudgetError, CorruptionError, DeviceError, StorageError
from fourfold.storage.init import Constant, Init, Normal, Uniform, init_names
from fourfold.storage.key import KeyCode, collision_odds, collision_text
from fourfold.storage.optimizer import (
    FTRL,
    SGD,
    Adagrad,
    Adam,
    Optimizer,
    RowWiseAdagrad,
    RowWiseAdam,
    optimizer_names,
)
from fourfold.storage.pad import Pad
from fourfold.storage.reclaim import Admission, Population, ReclaimConfig
from fourfold.storage.request import Request, Segment, SegmentedRequest
from fourfold.storage.row import RowSpec

__all__ = [
    "FTRL",
    "SGD",
    "Adagrad",
    "Adam",
    "Admission",
    "BudgetError",
    "Constant",
    "CorruptionError",
    "DeviceError",
    "Init",
    "KeyCode",
    "Normal",
    "Optimizer",
    "Pad",
    "Population",
    "ReclaimConfig",
    "Request",
    "RowSpec",
    "RowWiseAdagrad",
    "RowWiseAdam",
    "Segment",
    "SegmentedRequest",
    "StorageConfig",
    "StorageError",
    "Ticket",
    "Uniform",
    "collision_odds",
    "collision_text",
    "init_names",
    "optimizer_names",
]
