"""The README's example runs as it is printed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.mpi
def test_the_model_of_the_readme_trains() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)

    assert names["trainer"].step_count == 100
    assert names["bags"].pad.rows > 0
    names["bags"].close()
