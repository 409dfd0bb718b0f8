"""Lookups grouped by row, under sanitizers."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("sanitizers", ["address,undefined", "thread"])
def test_groups_are_those_of_a_stable_sort(sanitizers: str, tmp_path: Path) -> None:
    """On 1 to 16 threads: few rows and many, hot ones, ids without rows, weights, credits."""
    compiler = os.environ.get("CXX") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    native, program = ROOT / "storage" / "native", tmp_path / "group"
    flags = ["-std=gnu++20", "-O2", "-g", "-pthread", f"-I{native}", f"-fsanitize={sanitizers}"]
    sources = [str(Path(__file__).with_name("group.cpp")), str(native / "group.cpp")]
    stop = ["-fno-sanitize-recover=all"]
    subprocess.run([compiler, *flags, *stop, *sources, "-o", str(program)], check=True)

    subprocess.run([str(program), "1"], check=True)
