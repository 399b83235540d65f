"""The failures a stage can end with, each with the exit code that dvc, the flow and a person can
tell apart.
"""

from pathlib import Path

EXIT_DONE = 0
EXIT_PARAMS = 3
EXIT_DATA = 4
EXIT_MEMORY = 5
EXIT_RUNNING = 6
EXIT_AGAIN = 75
EXIT_STOPPED = 143


class StageError(Exception):
    """A failure with a place and a remedy: `where: what; remedy`, on one line."""

    code = 1

    def __init__(self, what: str, *, where: str | Path = "", remedy: str = "") -> None:
        self.what, self.where, self.remedy = what, str(where), remedy
        super().__init__(what)

    def __str__(self) -> str:
        line = f"{self.where}: {self.what}" if self.where else self.what
        return f"{line}; {self.remedy}" if self.remedy else line


class ParamsError(StageError):
    """params.yaml (or a command-line option) is wrong."""

    code = EXIT_PARAMS


class DataError(StageError):
    """An input file, record or model is missing, malformed or corrupt."""

    code = EXIT_DATA


class OutOfMemoryError(StageError):
    """The work does not fit the device's memory."""

    code = EXIT_MEMORY


class AlreadyRunningError(StageError):
    """Another live process holds this stage's lock."""

    code = EXIT_RUNNING


class TryAgainError(StageError):
    """A cause outside the stage (full disk, port in use); the same command continues where it
    stopped.
    """

    code = EXIT_AGAIN


class StopRequested(BaseException):
    """SIGTERM or SIGINT arrived; not an `Exception`, so that no library swallows it."""
