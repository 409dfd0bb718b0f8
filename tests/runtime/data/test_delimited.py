"""CSV: what a value may be, and what is said of a line that is not right."""

from pathlib import Path

import pytest

from fourfold.runtime.data.batch import Batch
from fourfold.runtime.data.hashing import text_id
from fourfold.runtime.data.reader import DataConfig, open_reader
from fourfold.runtime.errors import DataError

MAPPING = {
    "label": "click",
    "dense": ("price",),
    "sparse": ("user", "word", "tags"),
    "hashed": ("word",),
    "lists": ("tags",),
    "list_separator": "|",
    "weights": {"tags": "weights"},
}
HEADER = "click,price,user,word,tags,weights"
GOOD = "1,0.5,7,cat,3|4,0.25|2"


def read(path: Path, size: int = 100, **changes) -> tuple[list[Batch], int]:
    config = DataConfig(kind="csv", paths=(str(path),), **(MAPPING | changes))
    with open_reader(config, shard=0, shards=1, batch_size=size) as reader:
        return list(reader), reader.skipped


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.csv"


MALFORMED = {
    "label 2": ("2,0.5,7,cat,3,1", "column click: expected 0 or 1, got '2'"),
    "label text": ("yes,0.5,7,cat,3,1", "column click: expected 0 or 1, got 'yes'"),
    "label nan": ("nan,0.5,7,cat,3,1", "column click: expected 0 or 1, got 'nan'"),
    "no label": (",0.5,7,cat,3,1", "column click: expected 0 or 1, got nothing"),
    "nan": ("1,nan,7,cat,3,1", "column price: expected a finite number, got 'nan'"),
    "infinite": ("1,-inf,7,cat,3,1", "column price: expected a finite number, got '-inf'"),
    "too big": ("1,1e39,7,cat,3,1", "column price: expected a finite number, got '1e39'"),
    "not a number": ("1,5 EUR,7,cat,3,1", "column price: expected a finite number, got '5 EUR'"),
    "negative id": ("1,1,-7,cat,3,1", "column user: expected a whole number in [0, 2^63), as"),
    "huge id": ("1,1,9223372036854775808,cat,3,1", "column user: expected a whole number in"),
    "fraction": ("1,1,7.5,cat,3,1", "column user: expected a whole number in"),
    "text id": ("1,1,seven,cat,3,1", "[0, 2^63), as the column is not in data.hashed, got 'seven'"),
    "list gap": ("1,1,7,cat,3||4,1|1|1", "column tags: expected a whole number in [0, 2^63)"),
    "list text": ("1,1,7,cat,3|x,1|1", "column tags: expected a whole number in [0, 2^63)"),
    "few weights": ("1,1,7,cat,3|4,1", "column weights: expected 2 weights, as many as ids, got 1"),
    "no weights": ("1,1,7,cat,3,", "column weights: expected 1 weights, as many as ids, got 0"),
    "weight nan": ("1,1,7,cat,3,nan", "column weights: expected a finite number, got 'nan'"),
    "few columns": ("1,0.5,7", "expected 6 columns, got 3"),
    "many columns": ("1,0.5,7,cat,3,1,9", "expected 6 columns, got 7"),
    "blank": ("", "expected 6 columns, got a blank line"),
    "blank, CRLF": ("\r", "expected 6 columns, got a blank line"),
    "lone CR": ("1,1,7,c\rat,3,1", "expected no carriage return in a line, got one"),
    "open quote": ('1,1,7,"cat,3,1', "expected each quote to be closed in its line"),
    "quoted line end": ('1,1,7,"c\nat",3,1', "expected each quote to be closed in its line"),
}


@pytest.mark.parametrize("position", ["first", "middle", "last"])
@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_line_is_named(case: str, position: str, log: Path):
    text, message = MALFORMED[case]
    before = {"first": 0, "middle": 6, "last": 6}[position]
    after = {"first": 3, "middle": 5, "last": 0}[position]
    log.write_text("\n".join([HEADER, *[GOOD] * before, text, *[GOOD] * after]) + "\n")
    with pytest.raises(DataError) as error:
        read(log)

    assert f"{log}, line {before + 2}" in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_line_is_dropped_and_counted(case: str, log: Path):
    text, _ = MALFORMED[case]
    log.write_text("\n".join([HEADER, text, *[GOOD] * 7, text, GOOD, text]) + "\n")
    batches, skipped = read(log, on_error="skip")
    good = [s for b in batches for s in b.label]

    assert skipped == 3 * (text.count("\n") + 1)
    assert good == [1] * 8
    assert batches[0].ids.tolist() == [7] * 8 + [text_id("cat")] * 8 + [3, 4] * 8
    assert batches[0].weights.tolist() == [1] * 16 + [0.25, 2] * 8


def test_missing_values_are_empty(log: Path):
    log.write_text(f'{HEADER}\n0,,,,,\n1, 2 , 3 ,"",,""\n')
    (batch,), _ = read(log)

    assert batch.dense.tolist() == [[0], [2]]
    assert batch.lengths().tolist() == [[0, 1], [0, 0], [0, 0]]
    assert batch.ids.tolist() == [3]


def test_quotes_and_other_encodings(log: Path):
    rows = ['1,"0.5",7,"a ""cat"", or two",3,1', "1,1,7,caf\xe9,3,1"]
    log.write_bytes("\n".join([HEADER, *rows]).encode("latin-1"))
    (batch,), _ = read(log)

    assert batch.ids[2:4].tolist() == [text_id('a "cat", or two'), text_id(b"caf\xe9")]


def test_same_text_is_the_same_id_in_every_column(log: Path):
    log.write_text("click,a,b\n1,cat,dog|cat\n")
    (batch,), _ = read(
        log, dense=(), sparse=("a", "b"), hashed=("a", "b"), lists=("b",), weights={}
    )

    assert batch.ids.tolist() == [text_id("cat"), text_id("dog"), text_id("cat")]


def test_files_without_header_and_with_another_delimiter(log: Path):
    log.write_text("1;5;7\n0;6;8\n")
    (batch,), _ = read(
        log,
        columns=("click", "unused", "user"),
        delimiter=";",
        dense=(),
        sparse=("user",),
        hashed=(),
        lists=(),
        weights={},
    )

    assert batch.label.tolist() == [1, 0]
    assert batch.ids.tolist() == [7, 8]
    assert batch.dense.shape == (2, 0)


def test_each_file_has_its_own_order_of_columns(tmp_path: Path):
    (tmp_path / "1.csv").write_text("click,user\n1,7\n")
    (tmp_path / "2.csv").write_text("user,x,click\r\n8,,0\r\n")
    only = {"dense": (), "sparse": ("user",), "hashed": (), "lists": (), "weights": {}}
    (batch,), _ = read(tmp_path, **only)

    assert batch.label.tolist() == [1, 0]
    assert batch.ids.tolist() == [7, 8]


def test_dense_only(log: Path):
    log.write_text("click,price\n1,3\n0,4")
    (batch,), _ = read(log, sparse=(), hashed=(), lists=(), weights={})

    assert batch.dense.tolist() == [[3], [4]]
    assert batch.ids.tolist() == []
    assert batch.offsets.tolist() == [0]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (HEADER.replace("price", "prize"), "there is no column 'price'; nearest: 'prize'"),
        (HEADER + ",user", "there are 2 columns called 'user'"),
        ("a,b", "there is no column 'click'; it has a, b"),
        ("", "there is no column 'click'"),
        ("x" * 200_000, "not a header line of CSV: field larger than field limit"),
    ],
)
def test_header_must_have_the_mapped_columns(header: str, message: str, log: Path):
    log.write_text(f"{header}\n{GOOD}\n")
    with pytest.raises(DataError) as error:
        read(log)

    assert str(log) in str(error.value)
    assert message in str(error.value)


def test_header_alone_is_a_file_without_rows(tmp_path: Path):
    (tmp_path / "1.csv").write_text(HEADER)
    with pytest.raises(DataError, match="the train data have no rows"):
        read(tmp_path)

    (tmp_path / "2.csv").write_text(f"{HEADER}\n{GOOD}")
    assert [b.size for b in read(tmp_path)[0]] == [1]
