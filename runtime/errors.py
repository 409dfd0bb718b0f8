"""The errors that runtime, jobs and launch raise, and what each of them costs the process.

An error whose class is ours has a message that stands alone: what, where, expected, got, what to
do. The console shows just that message; its traceback goes to the rank's log. Any other exception
is a bug of ours (or of a user's model) and is shown with its traceback.

`comm` and `storage` import nothing above themselves, so their errors (`comm/errors.py`,
`storage/errors.py`) derive from builtins and not from `Error`. `launch/failure.py` sees all layers
and gives every class its exit code: 2 where the user can mend the job before anything starts
(`ConfigError`, comm's `PlacementError`), 1 for whatever happens to a run.
"""


class Error(Exception):
    """Root of the errors of runtime, jobs and launch."""


class ConfigError(Error, ValueError):
    """The job file or an override asks for something that cannot be (exit code 2)."""


class DataError(Error, ValueError):
    """Input data disagree with what the job says of them; names file and line or row."""
