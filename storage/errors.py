"""Errors of the storage layer."""


class StorageError(OSError):
    """Rows could not be stored or read."""


class CorruptionError(StorageError):
    """Stored bytes disagree with their checksum or schema."""


class BudgetError(StorageError, MemoryError):
    """A tier would hold more bytes than it was given."""


class DeviceError(RuntimeError):
    """A GPU that is not there, has no memory left, or has failed."""
