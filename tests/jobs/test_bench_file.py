"""`fourfold bench file` in small: it checks the rows that it reads, and leaves no file."""

import argparse
import json
from pathlib import Path

import pytest

from fourfold.jobs import bench_file


def test_every_comparison_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")  # fio takes seconds
    monkeypatch.setattr(bench_file, "BATCH", 1000)
    monkeypatch.setattr(bench_file, "APPEND", 2 << 20)
    parser = argparse.ArgumentParser()
    bench_file.add_arguments(parser)
    options = ["--size", "8MiB", "--rounds", "1", "--buffered", "--json"]

    code = bench_file.run(parser.parse_args([*options, "--folder", str(tmp_path)]))

    results = [json.loads(line)["file"] for line in capsys.readouterr().out.splitlines()]
    assert code == 0
    assert [(r["what"], r["against"]) for r in results if r["row_bytes"] == 512] == [
        ("random rows", "engine"),
        ("random rows", "h5py, plain"),
        ("random rows", "h5py, same file"),
        ("append", "engine"),
        ("rewrite", "engine"),
    ]
    assert all(r["ours"] > 0 and r["ratio"] > 0 for r in results)
    assert list(tmp_path.iterdir()) == []
