"""A small job whose rows go through three tiers, under a real mpirun."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ranks import Ended, run_ranks

USERS = 30_000
SAMPLES = 20_480
JOB = """
[data]
kind = "csv"
paths = ["{folder}/clicks.csv"]
dense = ["age"]
sparse = ["user", "item"]

[embedding]
dim = 64

[[table]]
name = "user"
expected_rows = {users}

[[table]]
name = "item"
rows = 500

[model]
bottom = [8]
top = [8]

[train]
batch_size = 256
steps = 80
log_every = 10
lookahead = 3

[run]
folder = "{folder}/runs"
name = "one"

[placement]
default = {{ rows = -1 }}

[storage]
pad_bytes = "256KiB"
host_bytes = "2MiB"
file_bytes = "8MiB"
direct = false
"""


def write_job(folder: Path) -> Path:
    """Write click logs and the job; a third of the users' rows have to go to the file."""
    rng = np.random.default_rng(3)
    users, items = rng.integers(0, USERS, SAMPLES), rng.integers(0, 500, SAMPLES)
    lines = (f"{u % 2},0.5,{u},{i}\n" for u, i in zip(users.tolist(), items.tolist(), strict=True))
    (folder / "clicks.csv").write_text("label,age,user,item\n" + "".join(lines))
    job = folder / "job.toml"
    job.write_text(JOB.format(folder=folder, users=USERS))
    return job


def train(job: Path, *arguments: str, ranks: int = 2) -> Ended:
    return run_ranks(ranks, "-m", "fourfold.launch.cli", "train", str(job), *arguments)
