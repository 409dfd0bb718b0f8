"""Criteo's logs: what each field may be, and what is said of a line that is not right."""

import gzip
import logging
from pathlib import Path

import numpy as np
import pytest

from fourfold.runtime.data import lines
from fourfold.runtime.data.batch import Batch
from fourfold.runtime.data.reader import DataConfig, open_reader
from fourfold.runtime.errors import DataError

GOOD = ["1", *("5" for _ in range(13)), *("0000000a" for _ in range(26))]


def line(**changes: str) -> str:
    """A good line with some fields changed: label, I1..I13, C1..C26."""
    names = ["label", *(f"I{i}" for i in range(1, 14)), *(f"C{i}" for i in range(1, 27))]
    return "\t".join(changes.get(name, good) for name, good in zip(names, GOOD, strict=True))


def read(path: Path, size: int = 100, **config) -> tuple[list[Batch], int]:
    with open_reader(
        DataConfig(paths=(str(path),), **config), shard=0, shards=1, batch_size=size
    ) as reader:
        return list(reader), reader.skipped


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.tsv"


MALFORMED = {
    "label 2": (line(label="2"), "column label: expected 0 or 1, got '2'"),
    "label 10": (line(label="10"), "column label: expected 0 or 1, got '10'"),
    "label -1": (line(label="-1"), "column label: expected 0 or 1, got '-1'"),
    "label nan": (line(label="nan"), "column label: expected 0 or 1, got 'nan'"),
    "no label": (line(label=""), "column label: expected 0 or 1, got ''"),
    "text": (line(I3="x1"), "column I3: expected a whole number of at most 15 digits or nothing"),
    "fraction": (line(I13="1.5"), "column I13: expected a whole number"),
    "nan": (line(I1="nan"), "column I1: expected a whole number"),
    "only a sign": (line(I2="-"), "column I2: expected a whole number"),
    "sign inside": (line(I2="1-2"), "got '1-2'"),
    "bad ninth digit": (line(I2="x12345678"), "got 'x12345678'"),
    "huge": (line(I2="1" * 16), "got '1111111111111111'"),
    "a space": (line(I2=" 1"), "got ' 1'"),
    "not hex": (line(C7="0000000g"), "column C7: expected 8 hexadecimal digits or nothing, got"),
    "not ascii": (line(C7="0000000\xe9"), "column C7: expected 8 hexadecimal digits"),
    "short": (line(C26="3d0e"), "column C26: expected 8 hexadecimal digits or nothing, got '3d0e'"),
    "long": (line(C1="123456789"), "column C1: expected 8 hexadecimal digits"),
    "negative": (line(C1="-0000001"), "column C1: expected 8 hexadecimal digits"),
    "cut short": (line()[:100], "expected 40 fields between tabs, got"),
    "one more": (line() + "\t", "expected 40 fields between tabs, got 41"),
    "blank": ("", "expected 40 fields between tabs, got 1"),
    "binary": ("\0\1\2\r\3", "expected 40 fields between tabs, got 1"),
    "multi-hot gap": (line(C2="0000000a,,0000000b"), "column C2: expected 8 hexadecimal"),
    "list of counts": (line(I2="1,2"), "column I2: expected a whole number"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_line_is_named(case: str, log: Path):
    text, message = MALFORMED[case]
    log.write_text("\n".join([line(), line(), text, line(), "also bad"]) + "\n", "latin-1")
    with pytest.raises(DataError) as error:
        read(log)

    assert f"{log}, line 3" in str(error.value)
    assert message in str(error.value)
    assert 'data.on_error = "skip"' in str(error.value)


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_line_is_dropped_and_counted(case: str, log: Path, caplog):
    text, message = MALFORMED[case]
    log.write_text("\n".join([line(label="0"), text, line(), text, line()]) + "\n", "latin-1")
    with caplog.at_level(logging.WARNING):
        batches, skipped = read(log, on_error="skip")

    assert skipped == 2
    assert [b.label.tolist() for b in batches] == [[0, 1, 1]]
    assert batches[0].ids.tolist() == [10] * 26 * 3
    assert batches[0].offsets.tolist() == list(range(26 * 3 + 1))
    assert len(caplog.messages) == 1
    assert f"{log}, line 2" in caplog.text
    assert message in caplog.text


def test_first_of_several_faults_is_the_one_named(log: Path):
    log.write_text("\n".join([line(), line(C1="?", label="9"), line(I1="?")]))
    with pytest.raises(DataError, match="line 2, column label"):
        read(log)
    log.write_text("\n".join([line(), line(C2="?"), line(C1="?"), ""]))
    with pytest.raises(DataError, match="line 2, column C2"):
        read(log)


def test_counts_and_missing_values(log: Path):
    log.write_text(line(I1="", I2="-3", I3="0", I4="999999999999999", C1="", C2="FFffFFff"))
    (batch,), _ = read(log, dense_transform="none")

    assert batch.dense.dtype == np.float32
    assert batch.dense[0, :5].tolist() == [0, -3, 0, np.float32(999999999999999), 5]
    assert batch.ids[:3].tolist() == [0, 0xFFFFFFFF, 10]

    (logs,), _ = read(log)
    np.testing.assert_array_equal(logs.dense, np.log1p(np.maximum(batch.dense, 0)))


def test_several_ids_in_one_field(log: Path):
    log.write_text("\n".join([line(C1="0000000a,0000000b", C3=""), line(C26="00000001,00000002")]))
    (batch,), _ = read(log)

    assert batch.lengths()[[0, 1, 2, 25]].tolist() == [[2, 1], [1, 1], [1, 1], [1, 2]]
    assert batch.ids[:3].tolist() == [10, 11, 10]
    assert batch.ids[-4:].tolist() == [10, 10, 1, 2]
    # The third feature's first value is missing: id 0.
    assert batch.ids[batch.offsets[4] : batch.offsets[6]].tolist() == [0, 10]


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_line_ends_and_byte_order_mark(start: bytes, end: str, log: Path):
    text = (end or "\n").join([line(), line(label="0", C26="")]) + end
    log.write_bytes(start + text.encode())
    (batch,), _ = read(log)

    assert batch.label.tolist() == [1, 0]
    assert batch.ids[-2:].tolist() == [10, 0]


@pytest.mark.parametrize("block", [1, 100, 331, 5000])
def test_blocks_may_end_anywhere(block: int, log: Path, monkeypatch):
    monkeypatch.setattr(lines, "BLOCK", block)
    labels = [str(i % 3 // 2) for i in range(20)]
    log.write_text("\n".join(line(label=label, C1=f"{i:08x}") for i, label in enumerate(labels)))
    batches, _ = read(log, size=7)

    assert [b.size for b in batches] == [7, 7, 6]
    assert np.concatenate([b.label for b in batches]).tolist() == [int(label) for label in labels]
    assert np.concatenate([b.ids[: b.size] for b in batches]).tolist() == list(range(20))


def test_file_without_line_ends_is_refused(log: Path, monkeypatch):
    monkeypatch.setattr(lines, "BLOCK", 100)
    monkeypatch.setattr(lines, "MAX_LINE", 1000)
    log.write_text(line() + "\n" + "x" * 5000)
    with pytest.raises(DataError, match=r"log.tsv, line 2: no line end in 10\d\d bytes"):
        read(log)


def test_files_of_the_wrong_format_are_noticed_when_skipping(log: Path):
    log.write_text("label,I1,C1\n" + "1,2,3\n" * 2000)
    with pytest.raises(DataError, match="all of the first 1000 rows are malformed"):
        read(log, on_error="skip")


@pytest.mark.parametrize("name", ["log.tsv", "log.gz"])
def test_empty_file_is_refused_or_reported(name: str, tmp_path: Path, caplog):
    data = b"" if name == "log.tsv" else gzip.compress(b"")
    (tmp_path / name).write_bytes(data)
    (tmp_path / "other").write_text(line())
    with pytest.raises(DataError, match=rf"{name}: the file is empty"):
        read(tmp_path)

    with caplog.at_level(logging.WARNING):
        batches, _ = read(tmp_path, on_error="skip")
    assert [b.size for b in batches] == [1]
    assert "the file is empty" in caplog.text


def test_data_without_rows_are_refused(log: Path):
    log.write_bytes(b"\xef\xbb\xbf")
    with pytest.raises(DataError, match=r"the train data have no rows: data.paths = \["):
        read(log, on_error="skip")


class TestGzip:
    TEXT = "".join(line(C1=f"{i:08x}") + "\n" for i in range(50)).encode()

    def test_several_members(self, tmp_path: Path):
        path = tmp_path / "day_0"  # no ending needed
        path.write_bytes(gzip.compress(self.TEXT[:3001]) + gzip.compress(self.TEXT[3001:]))
        (batch,), _ = read(path)

        assert batch.ids[:50].tolist() == list(range(50))

    @pytest.mark.parametrize("share", [0.05, 0.5, 0.97, 0.99])
    def test_truncated(self, share: float, tmp_path: Path):
        path = tmp_path / "day_0.gz"
        data = gzip.compress(self.TEXT)
        path.write_bytes(data[: int(share * len(data))])
        with pytest.raises(DataError, match=r"day_0.gz: damaged after byte \d+ of its text"):
            read(path, on_error="skip")

    def test_altered(self, tmp_path: Path):
        path = tmp_path / "day_0.gz"
        data = bytearray(gzip.compress(self.TEXT))
        data[-6] ^= 1  # of the checksum
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"day_0\.gz: damaged"):
            read(path)

    def test_not_gzip_at_all(self, tmp_path: Path):
        path = tmp_path / "day_0.gz"
        path.write_bytes(self.TEXT)
        with pytest.raises(DataError, match="these are no gzip data"):
            read(path)
