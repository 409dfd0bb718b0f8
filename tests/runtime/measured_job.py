"""A job whose ids are known: what measuring it must find."""

from __future__ import annotations

from pathlib import Path

JOB = """
[data]
kind = "csv"
paths = ["clicks.csv"]
sparse = ["user", "friend", "item"]

[embedding]
dim = 16

[[table]]
name = "people"
features = ["user", "friend"]

[[table]]
name = "item"
rows = 500

[train]
batch_size = 60
"""

ROWS = 3000
PLENTY = 1 << 30


def write_job(folder: Path) -> None:
    """A user every 100 samples, a friend who comes once (and is a user too, early on), 7 items."""
    write_log(folder, [f"1,{i % 100},{i},{i % 7}" for i in range(ROWS)])
    (folder / "job.toml").write_text(JOB)


def write_log(folder: Path, lines: list[str]) -> None:
    (folder / "clicks.csv").write_text("\n".join(["label,user,friend,item", *lines]) + "\n")
