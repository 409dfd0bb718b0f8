"""The convert command, as the command line calls it."""

import argparse
from pathlib import Path

import pytest

from fourfold.jobs import convert
from fourfold.runtime.data.hashing import text_id
from fourfold.runtime.data.reader import DataConfig, open_reader
from fourfold.runtime.errors import DataError


def run(*words: str | Path, overrides: tuple[str, ...] = ()) -> int:
    parser = argparse.ArgumentParser()
    convert.add_arguments(parser)
    args = parser.parse_args([str(word) for word in words])
    args.overrides = overrides
    return convert.run(args)


@pytest.fixture
def job(tmp_path: Path) -> Path:
    rows = "".join(f"{i % 2},{i},word {i}\n" for i in range(50))
    (tmp_path / "log.csv").write_text(f"click,user,word\n{rows}1,x,y\n")
    path = tmp_path / "job.toml"
    path.write_text(
        f"""
        [data]
        kind = "csv"
        paths = ["{tmp_path}/*.csv"]
        label = "click"
        sparse = ["user", "word"]
        hashed = ["word"]
        """
    )
    return path


def test_convert(job: Path, capsys: pytest.CaptureFixture[str]):
    out = job.parent / "log.h5"
    code = run(job, out, overrides=("--data.on_error=skip",))
    said = capsys.readouterr().out

    assert code == 0
    assert "odds that any two different texts share an id: 1.1e-06 for 100 thousand" in said
    assert "log.h5: 50 rows with 100 ids" in said
    assert "left out 1 malformed rows" in said
    config = DataConfig(kind="hdf5", paths=(str(out),))
    with open_reader(config, shard=0, shards=1, batch_size=100) as reader:
        (batch,) = reader
    assert batch.ids.tolist() == [*range(50), *(text_id(f"word {i}") for i in range(50))]


def test_malformed_row_fails_with_its_line(job: Path):
    with pytest.raises(DataError, match=r"log\.csv, line 52, column user"):
        run(job, job.parent / "log.h5")

    assert sorted(p.name for p in job.parent.iterdir()) == ["job.toml", "log.csv"]


def test_held_out_rows_only(job: Path, capsys: pytest.CaptureFixture[str]):
    out = job.parent / "eval.parquet"
    run(job, out, "--split", "eval", overrides=("--data.on_error=skip", "--data.holdout=0.5"))
    rows = int(capsys.readouterr().out.split("eval.parquet: ")[1].split()[0])

    assert 10 < rows < 40
