"""The layers: comm and storage import nothing above themselves, and never each other."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {
    "storage": {"storage"},
    "comm": {"comm"},
    "runtime": {"runtime", "comm", "storage"},
    "jobs": {"jobs", "runtime", "comm", "storage"},
    "launch": {"launch", "jobs", "runtime", "comm", "storage"},
}


def imported_layers(source: str, path: str = "") -> set[tuple[int, str]]:
    """Return line and layer of every import from fourfold, wherever it stands in the file."""
    found = set()
    for node in ast.walk(ast.parse(source, path)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            package, _, rest = name.partition(".")
            if package == "fourfold":
                found.add((node.lineno, rest.partition(".")[0]))
    return found


@pytest.mark.parametrize("layer", ALLOWED)
def test_a_layer_imports_what_lies_below(layer: str) -> None:
    files = [p for ending in ("*.py", "*.pyi") for p in (ROOT / layer).rglob(ending)]
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports fourfold.{imported}"
        for path in files
        for line, imported in sorted(imported_layers(path.read_text(), str(path)))
        if imported not in ALLOWED[layer]
    ]

    assert files
    assert not wrong


def test_every_folder_is_a_package() -> None:
    modules = [path for layer in ALLOWED for path in (ROOT / layer).rglob("*.py")]

    assert [p.parent for p in modules if not (p.parent / "__init__.py").exists()] == []


def test_imports_are_found_wherever_they_stand() -> None:
    source = (
        "import numpy\ndef f():\n    from fourfold.comm import tile\nimport fourfold.storage.pad\n"
    )

    assert imported_layers(source) == {(3, "comm"), (4, "storage")}
