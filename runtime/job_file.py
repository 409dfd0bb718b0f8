"""A job file with its overrides from the command line: `--train.steps=100`, `--table.user.dim=64`.

The value of an override is TOML, so that types are exact (`100`, `1e-3`, `true`, `[0, 1]`,
`"text"`); a field that wants a string takes bare text as well. An entry of an array of tables goes
by its `name`, or else by its position.
"""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from fourfold.runtime.errors import ConfigError
from fourfold.runtime.toml import Flag, Where, build, entry_name, nearest
from fourfold.runtime.toml_text import show_key

T = TypeVar("T")


def load_file(kind: type[T], path: str | Path, overrides: Sequence[str] = ()) -> T:
    """Read dataclass `kind` from a TOML file. Raises ConfigError, which names file and key."""
    tree = _read(Path(path))
    texts = apply_overrides(tree, overrides)
    return build(kind, tree, Where(str(path), kind, overrides=texts))


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        beside = sorted(str(p) for p in path.parent.glob("*.toml"))
        hint = f"; there are {', '.join(beside)}" if beside else ""
        raise ConfigError(f"{path}: no such file (seen from {Path.cwd()}){hint}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start})") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part the overrides, as `--section.key=value`, from the other command line arguments.

    Takes `--section.key value` too. Raises ConfigError where the value is missing.
    """
    others: list[str] = []
    overrides: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("--") or "." not in argument.partition("=")[0]:
            others.append(argument)
        elif "=" in argument:
            overrides.append(argument)
        else:
            value = next(rest, None)
            if value is None or value.startswith("--"):
                raise ConfigError(f"override {argument}: no value; write {argument}=VALUE")
            overrides.append(f"{argument}={value}")
    return others, overrides


def apply_overrides(tree: dict[str, Any], overrides: Sequence[str]) -> dict[tuple[str, ...], str]:
    """Set `overrides` in a TOML tree, in place; the last one of a key wins.

    Returns the text of the override by the keys that it set, for messages. Raises ConfigError.
    """
    texts: dict[tuple[str, ...], str] = {}
    for override in overrides:
        path, _, text = override.removeprefix("--").partition("=")
        keys = _set(tree, _parse_path(path, override), _parse_value(text), override)
        texts[keys] = override
    return texts


def _parse_path(path: str, override: str) -> list[str]:
    try:
        node = tomllib.loads(f"{path} = 0")
    except tomllib.TOMLDecodeError:
        node = {}
    keys: list[str] = []
    while isinstance(node, dict) and len(node) == 1:
        key, node = next(iter(node.items()))
        keys.append(key)
    if len(keys) < 2 or "\n" in path:
        raise ConfigError(f"override {override}: expected --section.key=value")
    return keys


def _parse_value(text: str) -> Flag:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        parsed = {}
    return Flag(parsed["value"] if parsed.keys() == {"value"} else text, text)


def _set(tree: dict[str, Any], path: list[str], value: Flag, override: str) -> tuple[str, ...]:
    """Set one value and return the keys that lead to it, positions for names."""
    node: Any = tree
    keys: list[str] = []
    for depth, key in enumerate(path):
        place = f"override {override}: {'.'.join(map(show_key, path[:depth]))}"
        if isinstance(node, list):
            position = _position(node, key, place)
            keys.append(str(position))
            if depth == len(path) - 1:
                node[position] = value.value
            node = node[position]
        elif isinstance(node, dict):
            keys.append(key)
            if depth == len(path) - 1:
                node[key] = value
            elif isinstance(node.get(key), Flag):
                node[key] = node[key].value
            node = node.setdefault(key, {})
        else:
            raise ConfigError(f"{place} is a value and has no keys")
    return tuple(keys)


def _position(entries: list[Any], key: str, place: str) -> int:
    names = [entry_name(entry) for entry in entries]
    if key in names:
        return names.index(key)
    if key.isdecimal() and int(key) < len(entries):
        return int(key)
    known = [name for name in names if name]
    near = nearest(key, known)
    hint = f"nearest: {near}" if near else f"it has {', '.join(known) or len(entries)}"
    raise ConfigError(f"{place} has no entry {key!r}; {hint}")
