"""The `[data]` section: what cannot be."""

import pytest

from fourfold.runtime.data.config import DataConfig
from fourfold.runtime.errors import ConfigError

TABLE = {"kind": "csv", "label": "y", "dense": ("a",), "sparse": ("b", "c")}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "xml"}, "kind must be one of criteo, csv, parquet, hdf5, got 'xml'"),
        ({"on_error": "ignore"}, "on_error must be one of raise, skip"),
        ({"dense_transform": "sqrt"}, "dense_transform must be one of auto, log1p, none"),
        ({"holdout": 1.0}, r"holdout must be in \[0, 1\), got 1.0"),
        ({"holdout": 0.1, "eval_paths": ("x",)}, "holdout and eval_paths exclude each other"),
        ({"sparse": ("C1",)}, "sparse is for csv and parquet: criteo files name their own"),
        ({"kind": "hdf5", "dense": ("a",)}, "dense is for csv and parquet: hdf5 files"),
        ({"list_separator": "a"}, "list_separator cannot be 'a' in a Criteo log"),
        ({"list_separator": ", "}, "list_separator must be one ASCII character"),
        (TABLE | {"delimiter": ""}, "delimiter must be one ASCII character, got ''"),
        ({"kind": "csv"}, "csv needs dense or sparse"),
        (TABLE | {"dense": ("b",)}, "column 'b' has two uses"),
        (TABLE | {"label": "c"}, "column 'c' has two uses"),
        (TABLE | {"weights": {"b": "a"}}, "column 'a' has two uses"),
        (TABLE | {"hashed": ("d",)}, "hashed names 'd', which is not in sparse"),
        (TABLE | {"lists": ("a",)}, "lists names 'a', which is not in sparse"),
        (TABLE | {"weights": {"a": "w"}}, "weights names 'a', which is not in sparse"),
        (TABLE | {"columns": ("y", "a", "b")}, "column 'c' is not in columns"),
        (TABLE | {"columns": ("y", "a", "b", "c", "c")}, "columns names 'c' twice"),
        (TABLE | {"kind": "parquet", "columns": ("y", "a", "b", "c")}, "columns is for csv"),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, object], message: str):
    with pytest.raises(ConfigError, match=message):
        DataConfig(**fields)


def test_defaults_can_be():
    assert not DataConfig().has_eval
    assert DataConfig(holdout=0.1).has_eval
    assert DataConfig(eval_paths=("x",)).has_eval
    assert DataConfig(**TABLE).sparse == ("b", "c")
