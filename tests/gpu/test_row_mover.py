"""Rows that move between a device and records of the host, both ways."""

from __future__ import annotations

import ctypes

import gpu
import pytest
from native_checks import compile_checks


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return compile_checks(
        tmp_path_factory.mktemp("row_mover"),
        "tests/storage/row_mover.cpp",
        "storage/native/row_mover.cpp",
    )


def ask(library: ctypes.CDLL, check: str, name: str, *arguments: bool) -> str:
    """What a check of the library says, run on a device."""
    driver = gpu.driver(name)
    names = b"".join(kernel.encode() + b"\0" for kernel in driver.kernels)
    handles = (ctypes.c_uint64 * len(driver.kernels))(*driver.kernels.values())
    function = getattr(library, check)
    function.restype = ctypes.c_char_p
    count = ctypes.c_size_t(len(handles))
    said: bytes = function(driver.path.encode(), names, handles, count, *arguments)
    return said.decode()


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("name", gpu.devices())
def test_rows_come_and_go(library: ctypes.CDLL, name: str, *, in_place: bool) -> None:
    """All through buffers, or some of them in place."""
    assert ask(library, "check_moves", name, in_place) == ""


@pytest.mark.parametrize("pinned_before", [False, True])
def test_records_that_are_not_pinned_are_out_of_sight(
    library: ctypes.CDLL, *, pinned_before: bool
) -> None:
    said = ask(library, "check_following", "stand-in", pinned_before)
    gpu.take_fault()

    assert "kernel store_rows: record 0 of 1 lies in memory of the host that is not pinned" in said


@pytest.mark.parametrize("name", gpu.devices())
def test_births_and_copies_do_not_wait_for_the_device(library: ctypes.CDLL, name: str) -> None:
    assert ask(library, "check_arrival", name) == ""


def test_what_fails_later_is_told_by_the_next_call(library: ctypes.CDLL) -> None:
    said = ask(library, "check_failure", "stand-in")
    gpu.take_fault()

    assert "GPU 0 has failed at rows that come, leave or move, or at what it was given" in said
    assert "kernel bear_rows" in said
