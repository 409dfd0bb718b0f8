"""Written TOML: a dataclass as a file that reads back equal, and a value as messages quote it."""

import dataclasses
import json
import math
import re
from collections.abc import Iterator
from enum import Enum
from typing import Any

from fourfold.runtime.units import write_bytes


def dump(tree: Any) -> str:
    """Write a dataclass as TOML that `fourfold.runtime.toml.build` makes an equal one from.

    Dataclasses become [sections], tuples of them [[arrays of tables]]; what lies deeper is inline.
    Everything is written, defaults too, so that the text stays true when a default changes.
    """
    scalars: list[str] = []
    sections: list[str] = []
    for name, value in _items(tree):
        if dataclasses.is_dataclass(value):
            sections.append(f"[{show_key(name)}]\n{_lines(value)}")
        elif isinstance(value, tuple) and value and all(map(dataclasses.is_dataclass, value)):
            sections.extend(f"[[{show_key(name)}]]\n{_lines(entry)}" for entry in value)
        else:
            scalars.append(f"{show_key(name)} = {show(value, name)}\n")
    return "\n".join(["".join(scalars), *sections] if scalars else sections)


def _lines(tree: Any) -> str:
    return "".join(f"{show_key(name)} = {show(value, name)}\n" for name, value in _items(tree))


def _items(tree: Any) -> Iterator[tuple[str, Any]]:
    """Yield the fields to write: all but a None that is the default anyway."""
    for f in dataclasses.fields(tree):
        value = getattr(tree, f.name)
        if f.init and not (value is None and f.default is None):
            yield f.name, value


def show(value: Any, name: str = "") -> str:
    """Write one value of a field called `name`."""
    if isinstance(value, Enum):
        return show(value.value)
    if value is None:
        return '"none"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        size = write_bytes(value) if counts_bytes(name) else value
        return str(size) if isinstance(size, int) else show_text(size)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return show_text(value)
    if isinstance(value, tuple | list):
        return f"[{', '.join(show(v) for v in value)}]"
    if isinstance(value, dict) or dataclasses.is_dataclass(value):
        items = value.items() if isinstance(value, dict) else _items(value)
        inside = ", ".join(f"{show_key(k)} = {show(v, k)}" for k, v in items)
        return f"{{ {inside} }}" if inside else "{}"
    return str(value)  # a date or a time: no field takes one, but a message may have to quote it


def show_text(text: str) -> str:
    """Write a string as TOML."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def show_key(key: str) -> str:
    """Write a key as TOML: bare where it can be."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else show_text(key)


def counts_bytes(name: str) -> bool:
    """Say whether a field of that name is a number of bytes, which may be written "64GiB"."""
    return name == "bytes" or name.endswith("_bytes")
