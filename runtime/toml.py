"""Typed TOML: a tree of frozen dataclasses read from a job file.

Every key of the file must be a field, and every value must have its field's type: nothing is
guessed, dropped or rounded. What fails is one ConfigError that names the file (or the override),
the key, what was expected, what was found and the nearest valid key.

Fields may be int, float, bool, str, Literal, Enum (by value), tuple[T, ...], tuple[A, B],
dict[str, T], another dataclass, and unions of these with at most one dataclass. Beyond TOML:

- a field called `bytes` or `*_bytes` takes "64GiB" as well as a number;
- a field that may be None takes "none", because TOML has no null;
- a table given in part keeps the rest of the field's default.

`fourfold.runtime.toml_text` writes a tree back.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field
from enum import Enum
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from fourfold.runtime.errors import ConfigError
from fourfold.runtime.toml_text import counts_bytes, show, show_key, show_text
from fourfold.runtime.units import parse_bytes

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Flag:
    """A value from the command line: as TOML, and as text where the field wants a string."""

    value: Any
    text: str


@dataclass(frozen=True, slots=True)
class Where:
    """A place in the file: what a message must name."""

    file: str
    root: type
    keys: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    """The keys as shown: an entry of an array of tables goes by its name."""
    overrides: Mapping[tuple[str, ...], str] = field(default_factory=dict)
    """Text of the override that set a key."""

    def at(self, key: str, name: str = "") -> Where:
        """Return the place one level down."""
        keys, names = (*self.keys, key), (*self.names, show_key(name or key))
        return dataclasses.replace(self, keys=keys, names=names)

    def error(self, message: str) -> ConfigError:
        """Return the error, for the caller to raise, that says `message` about this place."""
        place = ".".join(self.names)
        for length in range(len(self.keys), 0, -1):
            if self.keys[:length] in self.overrides:
                return ConfigError(f"override {self.overrides[self.keys[:length]]}: {message}")
        below = [
            text for keys, text in self.overrides.items() if keys[: len(self.keys)] == self.keys
        ]
        if below:
            message += f" (with {' '.join(below)})"
        return ConfigError(": ".join(filter(None, (self.file, place, message))))


def build(kind: type[T], tree: Mapping[str, Any], where: Where) -> T:
    """Make a `kind` from a TOML tree whose leaves may be Flags. Raises ConfigError."""
    made: T = _build(kind, tree, where, MISSING)
    return made


def _build(kind: Any, tree: Mapping[str, Any], where: Where, base: Any) -> Any:
    """Make dataclass `kind`; what the tree leaves open comes from `base`, if it is of that kind."""
    known = _fields(kind)
    for key in tree:
        if key not in known:
            raise where.at(key).error(f"unknown key; {_nearest_key(key, where, known)}")
    values: dict[str, Any] = {}
    for name, (annotation, default) in known.items():
        if isinstance(base, kind):
            default = getattr(base, name)
        if name in tree:
            values[name] = _convert(annotation, tree[name], where.at(name), default)
        elif default is not MISSING:
            values[name] = default
        elif dataclasses.is_dataclass(annotation):  # a section may be left out; its keys decide
            values[name] = _build(annotation, {}, where.at(name), MISSING)
        else:
            raise where.at(name).error(f"missing; expected {_expected(annotation, name)}")
    try:
        return kind(**values)
    except ValueError as error:
        raise where.error(str(error)) from error


def _fields(kind: Any) -> dict[str, tuple[Any, Any]]:
    """Return annotation and default (or MISSING) of the fields that a file may set, by name."""
    return {
        f.name: (
            _annotations(kind)[f.name],
            f.default if f.default_factory is MISSING else f.default_factory(),
        )
        for f in dataclasses.fields(kind)
        if f.init
    }


@cache
def _annotations(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _convert(kind: Any, value: Any, where: Where, base: Any = MISSING) -> Any:
    name = where.keys[-1]
    if isinstance(value, Flag):
        as_text = _choose(kind, value.value, name) is None and _choose(kind, value.text, name)
        value = value.text if as_text else value.value
    choice = _choose(kind, value, name)
    if choice is None:
        found = f"{show(_plain(value))}{_near(kind, value)}"
        raise where.error(f"expected {_expected(kind, name)}, got {found}")
    if choice is types.NoneType:
        return None
    if dataclasses.is_dataclass(choice):
        return _build(choice, value, where, base)
    if get_origin(choice) is dict:
        return {k: _convert(get_args(choice)[1], v, where.at(k)) for k, v in value.items()}
    if get_origin(choice) is tuple:
        kinds = enumerate(_element_kinds(choice, len(value)))
        return tuple(
            _convert(k, value[i], where.at(str(i), entry_name(value[i]))) for i, k in kinds
        )
    return _scalar(choice, value, where)


def _scalar(choice: Any, value: Any, where: Where) -> Any:
    try:
        if choice is int and isinstance(value, str):
            return parse_bytes(value)
        if choice is float and value != value:
            raise ValueError(f"expected {_expected(choice)}, got nan")
        is_enum = isinstance(choice, type) and issubclass(choice, Enum)
        return choice(value) if is_enum or choice is float else value
    except (ValueError, OverflowError) as error:
        raise where.error(str(error)) from error


def _choose(kind: Any, value: Any, name: str) -> Any:
    """Return the alternative of `kind` that `value` is written as, or None."""
    alternatives = _alternatives(kind)
    if value == "none" and types.NoneType in alternatives:
        return types.NoneType
    # An integer is a number too, and any word is a string: what says more goes first.
    alternatives.sort(key=lambda k: 2 if k is str else 1 if k is float else 0)
    return next((k for k in alternatives if _fits(k, value, name)), None)


def _fits(kind: Any, value: Any, name: str = "") -> bool:
    if kind is bool or kind is str:
        return isinstance(value, kind)
    if kind is int:
        size = isinstance(value, str) and counts_bytes(name) and value[:1].isdigit()
        return size or (isinstance(value, int) and not isinstance(value, bool))
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if get_origin(kind) is Literal:
        return any(value == choice and type(value) is type(choice) for choice in get_args(kind))
    if get_origin(kind) is tuple and isinstance(value, list):
        kinds = _element_kinds(kind, len(value))
        return len(kinds) == len(value) and all(
            any(_fits(a, v) for a in _alternatives(k)) for k, v in zip(kinds, value, strict=True)
        )
    if isinstance(kind, type) and issubclass(kind, Enum):
        return any(value == member.value for member in kind)
    # Inside a table the error is about a key of its own, so that its shape is enough here.
    is_table = get_origin(kind) is dict or dataclasses.is_dataclass(kind)
    return is_table and isinstance(value, dict)


def _alternatives(kind: Any) -> list[Any]:
    """Flatten a union; any other type is its own only alternative."""
    if get_origin(kind) in (Union, types.UnionType):
        return [a for k in get_args(kind) for a in _alternatives(k)]
    supported = (
        kind in (int, float, bool, str, types.NoneType)
        or get_origin(kind) in (Literal, tuple, dict)
        or dataclasses.is_dataclass(kind)
        or (isinstance(kind, type) and issubclass(kind, Enum))
    )
    assert supported, f"a field of a job cannot be {kind!r}"
    return [kind]


def _element_kinds(kind: Any, count: int) -> tuple[Any, ...]:
    arguments = get_args(kind)
    return arguments[:1] * count if arguments[-1:] == (Ellipsis,) else arguments


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return value.value if isinstance(value, Flag) else value


def entry_name(entry: Any) -> str:
    """Return the `name` of an entry of an array of tables, "" if it has none."""
    name = entry.get("name") if isinstance(entry, dict) else None
    return name.text if isinstance(name, Flag) else name if isinstance(name, str) else ""


def _nearest_key(key: str, where: Where, known: Mapping[str, Any]) -> str:
    """Suggest a key: of this table, else of anywhere in the file."""
    everywhere: dict[str, str] = {}
    for section, (kind, _) in _fields(where.root).items():
        for table in (k for a in _alternatives(kind) for k in (a, *get_args(a))):
            if dataclasses.is_dataclass(table):
                everywhere.update((name, f"{section}.{name}") for name in _fields(table))
    near = nearest(key, known)
    here = ".".join((*where.names, near))
    there = everywhere.get(key) or everywhere.get(nearest(key, everywhere, cutoff=0.8))
    if near or there:
        return f"nearest valid key: {here if near else there}"
    return f"valid keys: {', '.join(known) or 'none'}"


def nearest(word: str, words: Mapping[str, Any] | list[str], cutoff: float = 0.6) -> str:
    """Return the one of `words` that looks most like `word`, or "" if none does."""
    return next(iter(difflib.get_close_matches(word, words, n=1, cutoff=cutoff)), "")


def _near(kind: Any, value: Any) -> str:
    choices = [choice for choice in _choices(kind) if isinstance(choice, str)]
    near = nearest(value, choices) if isinstance(value, str) else ""
    return f"; nearest: {show_text(near)}" if near else ""


def _choices(kind: Any) -> Iterator[Any]:
    for alternative in _alternatives(kind):
        if get_origin(alternative) is Literal:
            yield from get_args(alternative)
        elif isinstance(alternative, type) and issubclass(alternative, Enum):
            yield from (member.value for member in alternative)


def _expected(kind: Any, name: str = "") -> str:
    """Say what `kind` is in the words of the file."""
    choices = [show(choice) for choice in _choices(kind)]
    said = [f"one of {', '.join(choices)}" if len(choices) > 1 else choices[0]] if choices else []
    plain = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}
    for k in _alternatives(kind):
        if k is int and counts_bytes(name):
            said.append('a number of bytes like 1048576 or "64GiB"')
        elif k in plain:
            said.append(plain[k])
        elif k is types.NoneType:
            said.append('"none"')
        elif get_origin(k) is tuple and get_args(k)[-1:] == (Ellipsis,):
            said.append(f"a list, each {_expected(get_args(k)[0])}")
        elif get_origin(k) is tuple:
            said.append(f"a list of {' and '.join(map(_expected, get_args(k)))}")
        elif get_origin(k) is dict or dataclasses.is_dataclass(k):
            said.append("a table")
    return " or ".join(said)
