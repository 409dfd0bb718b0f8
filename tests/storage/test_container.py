"""The file of a file tier: what others read in it, and who may open it."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from tier_contract import ids_of, records_of, same, spec_of, tile_specs

from fourfold.storage import Adam, CorruptionError, RowSpec, StorageError, _native
from fourfold.storage.tier import FileTier


def fill(path: Path, specs: list[RowSpec], **options: Any) -> None:
    with FileTier(specs, path, run="r", rank=3, **options) as tier:
        for tile, spec in enumerate(specs):
            ids = ids_of(spec)
            tier.write(tile, ids, records_of(spec, ids, 1))
            tier.erase(tile, ids[::3])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "rows.h5"
    fill(path, tile_specs())
    return path


def test_crc32c() -> None:
    """The value that the CRC catalogue gives for the digits, and the plain loop for the rest."""
    digits = np.frombuffer(b"123456789", np.uint8)
    assert _native.crc32c(digits) == _native.crc32c(digits, plain=True) == 0xE3069283
    for n in range(300):
        data = np.random.default_rng(n).integers(0, 256, n, dtype=np.uint8)
        assert _native.crc32c(data) == _native.crc32c(data, plain=True)


def test_a_closed_file_is_ordinary_hdf5(path: Path) -> None:
    spec = tile_specs()[2]
    with h5py.File(path) as file:
        assert file.attrs["format"] == "fourfold rows"
        assert file.attrs["run"] == "r"
        assert file.attrs["rank"] == 3
        assert set(file["rows"]) == {
            "fp32x8",
            "fp32x16_1rowstate",
            "bf16x700_2state",
            "fp16x5",
        }
        row = file["rows/fp32x16_1rowstate"]["row"]
        live = file["live/fp32x16_1rowstate"][...]
    assert row.shape == live.shape
    kept = np.delete(ids_of(spec), np.s_[::3])
    expected = records_of(spec, kept, 1)
    order = np.argsort(row[live]["key"])
    assert (row[live]["tile"] == 2).all()
    for field in ("weights", "row_state", "time", "score"):
        assert row[live][field][order].tobytes() == expected[field].tobytes()


@pytest.mark.skipif(shutil.which("h5dump") is None, reason="h5dump is not installed")
def test_h5dump_reads_it(path: Path) -> None:
    done = subprocess.run(["h5dump", "-H", path], capture_output=True, text=True, check=True)

    assert done.stderr == ""
    assert 'H5T_ARRAY { [16] H5T_IEEE_F32LE } "weights";' in done.stdout


@pytest.mark.parametrize("direct", [False, True])
def test_an_opened_file_holds_its_rows(path: Path, direct: bool) -> None:
    specs = tile_specs()
    for _ in range(2):  # opening and closing changes nothing
        with FileTier.open(specs, path, run="r", direct=direct) as tier:
            for tile, spec in enumerate(specs):
                kept = np.delete(ids_of(spec), np.s_[::3])
                records, found = tier.read(tile, ids_of(spec))
                assert found.sum() == len(kept)
                assert same(records[found], records_of(spec, kept, 1))
    with FileTier.open(specs, path, run="r", direct=direct) as tier:
        ids = ids_of(specs[1])
        tier.write(1, ids, records_of(specs[1], ids, 2))
    with FileTier.open(specs, path, run="r", direct=direct) as tier:
        assert same(tier.read(1, ids)[0], records_of(specs[1], ids, 2))


def test_a_file_of_many_segments_can_be_opened(tmp_path: Path) -> None:
    """More than one part of flags, of every length up to where a part ends."""
    spec = spec_of(0, None, 200)  # 5 records in a page
    rng = np.random.default_rng(0)
    for pages in (1, 63, 64, 65, 511, 512, 513, 1500):
        ids = np.arange(5 * pages - 2)
        path = tmp_path / f"{pages}.h5"
        with FileTier([spec], path, run="r", segment_bytes=4096) as tier:
            records = np.zeros(len(ids), spec.record)
            records["weights"] = ids[:, None]
            tier.write(0, ids, records)
            gone = rng.random(len(ids)) < 0.4
            tier.erase(0, ids[gone])
        with FileTier.open([spec], path, run="r") as tier:
            got, found = tier.read(0, ids)
            assert (found == ~gone).all()
            assert same(got[found], records[~gone])


def test_an_empty_file_can_be_opened(tmp_path: Path) -> None:
    FileTier(tile_specs(), tmp_path / "rows.h5", run="r").close()
    with FileTier.open(tile_specs(), tmp_path / "rows.h5", run="r") as tier:
        assert tier.rows == tier.bytes == 0


def test_space_of_dead_rows_leaves_the_file(tmp_path: Path) -> None:
    spec = spec_of(0, None, 60)
    ids = np.arange(150_000)
    with FileTier([spec], tmp_path / "rows.h5", run="r") as tier:
        tier.write(0, ids, np.zeros(len(ids), spec.record))
        tier.erase(0, ids[100:])
    status = os.stat(tmp_path / "rows.h5")
    assert status.st_blocks * 512 < 3 << 20 < status.st_size
    with FileTier.open([spec], tmp_path / "rows.h5", run="r") as tier:
        assert tier.rows == 100
        assert tier.bytes < 3 << 20


def refused(path: Path, specs: list[RowSpec], run: str = "r") -> StorageError:
    with pytest.raises(StorageError) as raised:
        FileTier.open(specs, path, run=run)
    assert str(path) in str(raised.value)
    return raised.value


def test_a_file_of_another_run_is_refused(path: Path) -> None:
    assert "belongs to run 'r', not 's'" in str(refused(path, tile_specs(), run="s"))


@pytest.mark.parametrize(
    "change",
    [
        {"dim": 9},
        {"name": "other"},
        {"rows": 1000},
        {"dtype": "bf16"},
        {"optimizer": Adam()},
        {"column": 8},
    ],
)
def test_a_file_of_other_tables_is_refused(path: Path, change: dict[str, Any]) -> None:
    specs = tile_specs()
    specs[1] = replace(specs[1], **change)
    assert "holds other tables" in str(refused(path, specs))


def test_a_file_of_fewer_tables_is_refused(path: Path) -> None:
    assert "holds 6 tiles, not 5" in str(refused(path, tile_specs()[:-1]))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.h5", tile_specs()).errno == errno.ENOENT


def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.h5"
    fill(path, tile_specs())
    path.chmod(0)
    for folder in (tmp_path, *list(tmp_path.parents)[:2]):
        folder.chmod(0o755)
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65534)
        assert refused(path, tile_specs()).errno == errno.EACCES
    finally:
        os.seteuid(user)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.h5"
    path.write_bytes(b"something else" * 1000)
    assert isinstance(refused(path, tile_specs()), CorruptionError)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    assert "is not a file of rows" in str(refused(tmp_path / "other.h5", tile_specs()))


def test_a_file_cut_short_is_refused(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)
    assert isinstance(refused(path, tile_specs()), CorruptionError)


def test_an_altered_row_is_refused(path: Path) -> None:
    with h5py.File(path) as file:
        dataset = file["rows/fp32x8"]
        place = int(np.flatnonzero(file["live/fp32x8"][...].reshape(-1))[3])
        start = dataset.id.get_chunk_info_by_coord((0,)).byte_offset
        record = dataset.dtype["row"].base.itemsize
    with open(path, "r+b") as raw:
        raw.seek(start + place * record + 5)
        raw.write(b"\xff\x00\xff")
    error = refused(path, tile_specs())
    assert isinstance(error, CorruptionError)
    assert f"/rows/fp32x8 records {place}:{place + 1}" in str(error)


def test_a_row_that_lives_twice_is_refused(path: Path) -> None:
    with FileTier.open(tile_specs(), path, run="r") as tier:
        ids = ids_of(tile_specs()[1])
        tier.write(1, ids, records_of(tile_specs()[1], ids, 2))
    with h5py.File(path, "r+") as file:
        keys = file["rows/fp32x8"][...]["row"]
        written = (keys["key"] != 0) & (keys["tile"] == 1)
        file["live/fp32x8"][...] = written
    error = refused(path, tile_specs())
    assert isinstance(error, CorruptionError)
    assert "are the same row" in str(error)


def test_a_file_that_was_not_closed_is_refused(tmp_path: Path) -> None:
    tier = FileTier(tile_specs(), tmp_path / "rows.h5", run="r")
    shutil.copy(tmp_path / "rows.h5", tmp_path / "copy.h5")
    tier.close()
    assert "was not closed" in str(refused(tmp_path / "copy.h5", tile_specs()))


def test_a_file_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "rows.h5").write_text("mine")
    with pytest.raises(StorageError, match="there is such a file already") as raised:
        FileTier(tile_specs(), tmp_path / "rows.h5", run="r")
    assert raised.value.errno == errno.EEXIST
    assert (tmp_path / "rows.h5").read_text() == "mine"


def test_a_folder_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file"):
        FileTier(tile_specs(), tmp_path / "none" / "rows.h5", run="r")


def test_two_tiers_of_a_process_cannot_have_one_file(path: Path) -> None:
    with FileTier.open(tile_specs(), path, run="r"):
        assert "is open in another file tier of this process" in str(refused(path, tile_specs()))


def test_the_process_that_has_the_file_is_named(path: Path) -> None:
    program = f"""
        import sys
        sys.path[:0] = {sys.path!r}
        from tier_contract import tile_specs
        from fourfold.storage.tier import FileTier
        with FileTier.open(tile_specs(), {str(path)!r}, run="r"):
            print("open", flush=True)
            sys.stdin.read()
    """
    command = [sys.executable, *["-S"] * sys.flags.no_site, "-P", "-c", textwrap.dedent(program)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as child:  # type: ignore[call-overload]
        assert child.stdout.readline() == "open\n"
        message = str(refused(path, tile_specs()))
        child.stdin.close()
    assert f"is open in process {child.pid} ({sys.executable}" in message
    FileTier.open(tile_specs(), path, run="r").close()


def test_readers_of_hdf5_are_told_to_wait(path: Path) -> None:
    with (
        FileTier.open(tile_specs(), path, run="r"),
        open(path) as other,
        pytest.raises(BlockingIOError),
    ):
        fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)


def test_an_error_in_the_constructor_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="engine must be auto, uring or threads, got 'fast'"):
        FileTier(tile_specs(), tmp_path / "rows.h5", run="r", engine="fast")
    assert list(tmp_path.iterdir()) == []
