"""Files that one tier has to itself."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from pathlib import Path

from fourfold.storage.errors import StorageError

PATIENCE_SECONDS = 2.0
"""How long the lock of a process that has ended may stay: io_uring tidies up after it."""


def open_locked(path: Path, flags: int, direct: bool) -> int:
    """Open the file and lock it; nobody else who asks can have it."""
    flags |= os.O_RDWR | (os.O_DIRECT if direct else 0)
    try:
        file = os.open(path, flags, 0o644)
    except OSError as error:
        if flags & os.O_CREAT and error.errno == errno.EINVAL:
            path.unlink(missing_ok=True)  # without direct I/O it may have been made all the same
        raise StorageError(error.errno, f"{path}: {_reason(error, direct)}") from None
    try:
        _lock(path, file)
    except BaseException:
        os.close(file)
        raise
    return file


def _lock(path: Path, file: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _holder(file)
            if holder is None and time.monotonic() < deadline:
                time.sleep(0.01)
                continue
            whom = holder or "another process"
            raise StorageError(error.errno, f"{path} is open in {whom}") from None


def _reason(error: OSError, direct: bool) -> str:
    if isinstance(error, FileExistsError):
        return "there is such a file already; rows of a new run need a new one"
    if error.errno == errno.EINVAL and direct:
        return "the file system has no direct I/O (O_DIRECT); set storage.direct = false"
    if error.errno in (errno.ENFILE, errno.EMFILE):
        return f"{error.strerror}: raise the limit of open files (ulimit -n)"
    return error.strerror or str(error)


def _holder(file: int) -> str | None:
    """Who has locked the file, if it is a living process of this machine."""
    status = os.fstat(file)
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if device not in words:
                continue
            pid = int(words[words.index(device) - 1])
            if pid == os.getpid():
                return "another file tier of this process"
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            return f"process {pid} ({command.strip()})"
    except (OSError, ValueError):
        pass
    return None
