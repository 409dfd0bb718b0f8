"""`fourfold stats` as a person types it, and `fourfold plan` with what it found."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from fourfold.jobs import plan, stats
from fourfold.runtime.config import load_job
from fourfold.runtime.errors import ConfigError, DataError
from fourfold.runtime.job_file import split_overrides
from fourfold.runtime.statistics import load_statistics

JOB = """
[data]
kind = "csv"
paths = ["clicks.csv"]
dense = ["age"]
sparse = ["user", "visit", "item"]

[embedding]
dim = 16

[[table]]
name = "people"
features = ["user"]
optimizer = "adam"
dim = 16

[[table]]
name = "item"
rows = 500

[model]
bottom = [8]
top = [8]

[train]
batch_size = 50
steps = 80
"""

COMMAND = ("from fourfold.launch.cli import main; import sys; code = main(sys.argv[1:]);"
           " print('mpi4py.MPI' in sys.modules, file=sys.stderr); sys.exit(code)")  # fmt: skip

ROWS = 20_000


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user stays for 2000 samples and comes every 50th; no visit comes again; 7 items."""
    lines = [f"1,0.5,{i // 2000 * 100 + i % 50},{i},{i % 7}" for i in range(ROWS)]
    (tmp_path / "clicks.csv").write_text("\n".join(["label,age,user,visit,item", *lines]) + "\n")
    (tmp_path / "job.toml").write_text(JOB)
    monkeypatch.chdir(tmp_path)


Fourfold = Callable[..., str]


@pytest.fixture
def fourfold(capsys: pytest.CaptureFixture[str]) -> Fourfold:
    """`fourfold COMMAND job.toml ARGUMENTS`, in this process."""

    def run(command: str, *arguments: str) -> str:
        module = {"stats": stats, "plan": plan}[command]
        parser = argparse.ArgumentParser()
        module.add_arguments(parser)
        plain, overrides = split_overrides(arguments)
        args = parser.parse_args(["job.toml", *plain])
        args.overrides = overrides
        assert module.run(args) == 0
        return capsys.readouterr().out

    return run


def section(text: str, title: str) -> dict[str, list[str]]:
    """Give the cells of every line below a title, by table."""
    block = next(part for part in text.split("\n\n") if part.startswith(title))
    lines = [line.split() for line in block.splitlines()[1:]]
    return {line[0]: line[1:] for line in lines}


def test_it_prints_lookups_reuse_gaps_and_memory(fourfold: Fourfold) -> None:
    text = fourfold("stats")

    assert text.startswith("all 20,000 samples of the training data, in order: 400 batches of 50")
    lookups = section(text, "table")
    assert lookups["people"] == ["dynamic", "20,000", "500", "0.0%", "50", "1.00", "1"]
    assert lookups["visit"] == ["dynamic", "20,000", "20,000", "100.0%", "50", "1.00", "1"]
    assert lookups["item"][:3] == ["500", "20,000", "7"]
    assert section(text, "ids seen")["people"][6] == "100.0"  # 40 times: 33 to 64
    assert section(text, "ids seen")["item"][-1] == "100.0"  # 2857 times, in the last column
    assert section(text, "... and % of the lookups")["visit"][0] == "100.0"
    gaps = section(text, "gaps between")
    assert gaps["people"] == ["19,500", *["50"] * 4, *["1"] * 4]
    assert gaps["item"] == ["19,993", *["7"] * 4, "0", "1", "1", "1"]
    assert gaps["visit"] == ["0", *["-"] * 8]
    rows = section(text, "rows at most")
    assert set(rows) == {"people", "visit", "total"}
    assert rows["people"] == [*["500"] * 4, *["500", "500", "493"], "100", "100"]
    assert rows["visit"] == ["20,000", "0", "0", "0", "10,000", "4,000", "2,000", "-", "-"]
    assert rows["total"][:2] == ["20,500", "500"]
    # Adam has 8 bytes of state per weight, row-wise Adagrad 4 per row; 31 of metadata and index.
    assert f"{500 * (64 + 128 + 31) / 1024:.0f} KiB" in " ".join(section(text, "memory")["people"])
    assert section(text, "% of lookups refused")["visit"][1] == "100.00"


def test_the_lines_to_paste_are_a_job(fourfold: Fourfold) -> None:
    """They hold what the job says of its tables, and what is suggested."""
    text = fourfold("stats")
    entries = tomllib.loads(text[text.index("# suggested") :])["table"]

    assert entries == [
        {
            "name": "people",
            "features": ["user"],
            "optimizer": "adam",
            "dim": 16,
            "expected_rows": 500,
            "time_to_live": 1,
        },
        {"name": "visit", "expected_rows": 20_000, "admission": "count", "admit_count": 2},
    ]
    assert "saves 100% of 20,000 rows; 100.0% of the lookups get no row, 0.0% a newborn" in text
    assert "100 of 500 rows live at a time, 0.00% of the lookups find theirs expired" in text


def test_a_part_of_the_data_and_of_the_ids(fourfold: Fourfold) -> None:
    text = fourfold("stats", "--samples", "1000", "--share", "0.5")

    assert text.startswith("the first 1,000 samples of the training data, in order: 20 batches")
    assert "thinned out by hash" in text
    assert section(text, "table")["visit"][-1] == "0.5"
    # 4000 samples will be trained on, and visits grow in proportion.
    assert "distinct ids of 4,000 samples, if they grow on with exponent" in text


def test_the_planner_goes_by_it(fourfold: Fourfold) -> None:
    fourfold("stats", "--out", "stats.json")
    Path("clicks.csv").unlink()  # planning needs no more
    by_stats = fourfold("plan", "--ranks", "2", "--stats", "stats.json")
    by_key = fourfold("plan", "--ranks", "2", "--placement.stats=stats.json")
    found = json.loads(fourfold("plan", "--ranks", "1", "--stats", "stats.json", "--json"))
    blind = json.loads(fourfold("plan", "--ranks", "1", "--json"))

    assert by_stats == by_key
    assert "measured with the rows of dynamic tables on 20,000 samples (stats.json)" in by_stats
    held = {table["name"]: table["bytes_per_rank"] for table in found["tables"]}
    assert held["people"] == 500 * (64 + 128 + 31)
    assert held["visit"] == 20_000 * (64 + 4 + 31)
    assert sum(found["tier_bytes"]["host"]) < sum(blind["tier_bytes"]["host"]) / 10


def test_rows_beyond_the_sample_are_planned_for(fourfold: Fourfold) -> None:
    """80 steps of 50 are four times the sample, and each visit is new."""
    fourfold("stats", "--out", "stats.json", "--samples", "1000")
    found = json.loads(fourfold("plan", "--ranks", "1", "--stats", "stats.json", "--json"))
    open_end = fourfold("plan", "--ranks", "1", "--stats=stats.json", "--train.steps=none")

    held = {table["name"]: table["bytes_per_rank"] for table in found["tables"]}
    assert held["visit"] == 4000 * 99
    assert held["people"] == 50 * (64 + 128 + 31)
    assert "train.steps does not say how far" in open_end


def test_the_job_may_cut_and_be_measured(fourfold: Fourfold) -> None:
    """The key does not stand in the way of the others of its section."""
    fourfold("stats", "--out", "stats.json")
    cut = ("--placement.default={ rows = -1 }", "--save", "placement.toml")
    fourfold("plan", "--ranks", "2", "--stats", "stats.json", *cut)

    loaded = fourfold(
        "plan", "--ranks", "2", "--stats", "stats.json", "--placement.path=placement.toml"
    )
    assert "row 2" in loaded


def test_memory_that_does_not_suffice_halves_the_ids(fourfold: Fourfold) -> None:
    fourfold("stats", "--out", "stats.json", "--memory", "1MiB")
    shares = {table.name: table.share for table in load_statistics("stats.json").tables}

    assert min(shares.values()) < 1
    assert load_statistics("stats.json").tables[2].lookups == ROWS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--samples", "0"), r"--samples must be in \[1, 2147483647\], got 0"),
        (("--share", "0"), r"--share must be in \(0, 1\], got 0"),
        (("--share", "nan"), r"--share must be in \(0, 1\], got nan"),
        (("--memory", "much"), "--memory: expected a number with a unit"),
        (("--memory", "1KiB"), "--memory must be at least 1 MiB"),
        (("--out", "no/stats.json"), "no/stats.json: cannot be written"),
    ],
)
def test_mistakes_are_named(fourfold: Fourfold, arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fourfold("stats", *arguments)


def test_data_that_are_not_there_are_named(fourfold: Fourfold) -> None:
    Path("clicks.csv").write_text("label,age,user,visit,item\n")
    with pytest.raises(DataError, match=r"the train data have no rows: data\.paths = "):
        fourfold("stats")
    Path("clicks.csv").unlink()
    with pytest.raises(DataError, match=r"data\.paths: .*clicks\.csv"):
        fourfold("stats")


def test_statistics_of_other_tables_are_refused(fourfold: Fourfold) -> None:
    fourfold("stats", "--out", "stats.json")
    renamed = Path("job.toml").read_text().replace('name = "people"', 'name = "folk"')
    Path("job.toml").write_text(renamed)

    with pytest.raises(ConfigError, match=r"stats\.json: has no table 'folk', which"):
        fourfold("plan", "--ranks", "2", "--stats", "stats.json")
    with pytest.raises(ConfigError, match=r"no\.json: cannot be read"):
        fourfold("plan", "--ranks", "2", "--stats", "no.json")


def test_a_job_remembers_its_statistics() -> None:
    assert load_job("job.toml").placement.stats is None
    assert load_job("job.toml", ["--placement.stats=a.json"]).placement.stats == "a.json"


def test_no_mpi_and_exit_codes() -> None:
    """Mistakes are exit code 2 and one message. MPI is not even imported."""
    for arguments, code, message in (
        (("stats", "job.toml", "--out", "stats.json"), 0, ""),
        (("plan", "job.toml", "--ranks", "2", "--stats", "stats.json"), 0, ""),
        (("plan", "job.toml", "--ranks", "2", "--stats", "job.toml"), 2, "not valid JSON"),
        (("stats", "job.toml", "--share", "2"), 2, "--share must be in"),
    ):
        done = subprocess.run(
            [sys.executable, "-P", "-c", COMMAND, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == code, done.stderr
        assert message in done.stderr
        assert done.stderr.endswith("False\n")
