"""The [storage] section."""

import pytest

from fourfold.storage import StorageConfig


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        (4096, 4096),
        ("4096", 4096),
        ("64GiB", 64 << 30),
        ("1.5 KiB", 1536),
        ("2 TB", 2 * 10**12),
        ("7 mb", 7 * 10**6),
    ],
)
def test_bytes(text: int | str | None, expected: int | None) -> None:
    assert StorageConfig(host_bytes=text).budget_bytes == expected


@pytest.mark.parametrize("text", ["", "GiB", "12 parsecs", "-4", "1e9", 0, -1, "0 GiB"])
def test_what_is_no_number_of_bytes_is_refused(text: int | str) -> None:
    with pytest.raises(ValueError, match=r"storage\.host_bytes"):
        StorageConfig(host_bytes=text)
