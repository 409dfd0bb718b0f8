"""What kernels use, read from their cubins; as a program, a table of all kernels of the tree.

A cubin is an ELF file. Its section .nv.info holds attributes of kernels; the ones wanted here are
pairs (symbol, value). That is what `cuobjdump --dump-resource-usage` reads, which CI does not have.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import struct
import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import gpu

from fourfold.runtime import kernels

ARCHITECTURES = ("sm_80", "sm_90", "sm_100")

_SYMBOL_TABLE = 2  # type of a section
_FRAME_SIZE, _REGISTERS = 0x11, 0x2F  # attributes


@dataclass(slots=True)
class Usage:
    """What one kernel uses."""

    registers: int = 0
    """Per thread."""
    stack_bytes: int = 0
    """Of local memory per thread: what was spilled, and arrays that are no registers."""
    shared_bytes: int = 0
    """Per block."""


@dataclass(frozen=True, slots=True)
class _Section:
    name: str
    kind: int
    offset: int
    size: int
    link: int


@contextlib.contextmanager
def compiled() -> Iterator[dict[tuple[Path, str], Future[bytes]]]:
    """Every source of the tree for every architecture, compiled meanwhile; a warning is an error.

    Two at a time, each in a process: within one NVRTC lets them wait for each other.
    """
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        yield {
            job: pool.submit(_without_warnings, *job)
            for job in itertools.product(gpu.cuda_sources(), ARCHITECTURES)
        }
        pool.shutdown(cancel_futures=True)


def _without_warnings(source: Path, arch: str) -> bytes:
    warnings.simplefilter("error")
    return kernels.cubin(source, arch)


def usage(code: bytes) -> dict[str, Usage]:
    """What each kernel of a cubin uses."""
    found = {name: Usage() for name in kernels.names(code)}
    sections = _sections(code)
    symbols = _symbols(code, sections)
    for section in sections:
        if section.name == ".nv.info":
            for attribute, symbol, value in _attributes(code, section):
                kernel = found.get(symbols[symbol], Usage())
                if attribute == _REGISTERS:
                    kernel.registers = value
                elif attribute == _FRAME_SIZE:
                    kernel.stack_bytes = value
        elif section.name.startswith(".nv.shared.") and section.name[11:] in found:
            found[section.name[11:]].shared_bytes = section.size
    return found


def _sections(code: bytes) -> list[_Section]:
    (start,) = struct.unpack_from("<Q", code, 0x28)
    size, count, names = struct.unpack_from("<3H", code, 0x3A)
    raw = [struct.unpack_from("<2I4Q2I", code, start + size * i) for i in range(count)]
    return [
        _Section(_text(code, raw[names][4] + name), kind, offset, length, link)
        for name, kind, _, _, offset, length, link, _ in raw
    ]


def _text(code: bytes, offset: int) -> str:
    return code[offset : code.index(b"\0", offset)].decode()


def _symbols(code: bytes, sections: list[_Section]) -> list[str]:
    table = next(section for section in sections if section.kind == _SYMBOL_TABLE)
    texts = sections[table.link].offset
    return [
        _text(code, texts + struct.unpack_from("<I", code, at)[0])
        for at in range(table.offset, table.offset + table.size, 24)
    ]


def _attributes(code: bytes, section: _Section) -> Iterator[tuple[int, int, int]]:
    """The attributes that are pairs: attribute, symbol, value."""
    at, end = section.offset, section.offset + section.size
    while at < end:
        kind, attribute, size = struct.unpack_from("<2BH", code, at)
        at += 4
        if kind == 4:  # `size` bytes follow; otherwise it is the value itself
            if size == 8:
                yield attribute, *struct.unpack_from("<2I", code, at)
            at += size


def table() -> str:
    """Kernels, and what they use on each architecture."""
    lines = [f"{'kernel':<28}{'arch':>8}{'registers':>11}{'shared':>9}{'stack':>7}"]
    with compiled() as codes:
        for source in gpu.cuda_sources():
            lines.append(str(source.relative_to(gpu.ROOT)))
            used = {arch: usage(codes[source, arch].result()) for arch in ARCHITECTURES}
            for name in used[ARCHITECTURES[0]]:
                for arch in ARCHITECTURES:
                    use = used[arch][name]
                    lines.append(
                        f"  {name if arch == ARCHITECTURES[0] else '':<26}{arch:>8}"
                        f"{use.registers:>11}{use.shared_bytes:>9}{use.stack_bytes:>7}"
                    )
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
