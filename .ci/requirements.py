"""Print what building, running, testing and checking Fourfold needs, from pyproject.toml."""

import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
extras = project["project"]["optional-dependencies"]
wanted = [
    *project["build-system"]["requires"],
    *("cmake>=3.20", "ninja"),
    *project["project"]["dependencies"],
    *extras["test"],
    *extras["check"],
    *extras["cuda13"],  # kernels are compiled where there is no GPU, too
]
print(*wanted, sep="\n")
