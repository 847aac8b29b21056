"""The exceptions of fgfast.

    FgfastError                      anything fgfast raises on purpose
    ├── UsageError                   the request cannot be carried out as given (exit code 2)
    │   ├── UnknownNameError         a name that is not in the allowed set
    │   ├── DatasetNotFoundError     no data set where we looked
    │   ├── OutputRefusedError       the output folder must not or cannot be used
    │   │   ├── OutputLockedError    another run is writing there
    │   │   └── SettingsDifferError  it holds a run made with other settings
    │   ├── MissingExtraError        an optional dependency is not installed
    │   ├── ModelNotCachedError      a model's weights are not on this machine
    │   └── OfflineError             something must be fetched, and FGFAST_OFFLINE forbids it
    ├── DatasetError                 an annotation file is malformed; names the file and the line
    ├── DownloadError                a download failed or its checksum differs
    ├── WeightsError                 a file of weights is damaged, or of another model
    ├── GraphError                   an exported graph is damaged, of another contract, or called with wrong inputs
    │   └── ParityError              it computes something else than the model does
    ├── DeviceMemoryError            a device has not enough memory for a batch
    ├── DeviceFailedError            a device failed; the process that used it must end
    ├── WorkerLostError              a worker process died, and none can take its place
    ├── OutputFailedError            the output cannot be written any more (disk full, read-only)
    └── SampleError                  one sample cannot be processed; becomes its outcome, never stops a run
        ├── ImageMissingError      listed in the annotations, absent on disk
        ├── ImageRefusedError      it declares more pixels than are decoded
        └── ImageBrokenError       it cannot be decoded

Every message says the value, what would be allowed, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


class FgfastError(Exception):
    """Anything fgfast raises on purpose."""

    exit_code = 1

    def __reduce__(self) -> tuple[Callable[..., FgfastError], tuple[type[FgfastError], str, dict[str, Any]]]:
        """As its message, for errors cross processes; the arguments it was made of may be gone by then."""
        return _again, (type(self), str(self), self.__dict__)


def _again(kind: type[FgfastError], message: str, attributes: dict[str, Any]) -> FgfastError:
    error = kind.__new__(kind)
    Exception.__init__(error, message)
    error.__dict__.update(attributes)
    return error


class UsageError(FgfastError):
    """The request cannot be carried out as given."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A name that is not in the allowed set; suggests the nearest one.

    Args:
        kind: what is being named, for the message ("data set", "segmenter").
        name: what was asked for.
        allowed: the names that exist.
    """

    def __init__(self, kind: str, name: str, allowed: Iterable[str]) -> None:
        names = sorted(allowed)
        folded = {known.lower(): known for known in names}
        near = difflib.get_close_matches(name.lower(), folded, n=1)
        hint = f" Did you mean {folded[near[0]]!r}?" if near else ""
        super().__init__(f"no {kind} named {name!r}.{hint} Known: {', '.join(names)}.")


class DatasetNotFoundError(UsageError):
    """No data set where we looked; the message lists the places and how to get it."""


class OutputRefusedError(UsageError):
    """The output folder must not or cannot be used for this run."""


class OutputLockedError(OutputRefusedError):
    """Another run is writing to this output folder."""


class SettingsDifferError(OutputRefusedError):
    """The output folder holds a run made with other settings."""


class MissingExtraError(UsageError):
    """An optional dependency is not installed.

    Args:
        package: the import name that failed.
        extra: the extra of fgfast that brings it.
        purpose: what needs it, for the message.
    """

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f'{purpose} needs the package {package}, which the extra {extra!r} brings: pip install "fgfast[{extra}]" '
            f'(in a clone: pip install ".[{extra}]")'
        )


class ModelNotCachedError(UsageError):
    """A model's weights are not on this machine.

    Args:
        name: the model, as `fgfast models` calls it.
        title: what it is, for the message.
        place: where its file would be.
    """

    def __init__(self, name: str, title: str, place: Path) -> None:
        super().__init__(
            f"{title} is not on this machine ({place} is missing or not whole); fetch it: fgfast models pull {name}"
        )
        self.name = name


class OfflineError(UsageError):
    """Something must be fetched, and FGFAST_OFFLINE forbids it."""


class DatasetError(FgfastError):
    """An annotation file is malformed.

    Args:
        path: the annotation file.
        problem: what is wrong, and what was expected.
        line: 1-based line number, where there is one.
    """

    def __init__(self, path: Path, problem: str, line: int | None = None) -> None:
        where = f"{path}:{line}" if line else str(path)
        super().__init__(f"{where}: {problem}")


class DownloadError(FgfastError):
    """A download failed or its checksum differs."""


class WeightsError(FgfastError):
    """A file of weights is damaged, or belongs to another model.

    Args:
        source: the file.
        problem: what is wrong, and what to do.
    """

    def __init__(self, source: Path | str, problem: str) -> None:
        super().__init__(f"{source}: {problem}")


class GraphError(FgfastError):
    """An exported graph is damaged, was made for another contract, or is called with wrong inputs."""


class ParityError(GraphError):
    """An exported graph computes something else than the model does; says which output, and by how much."""


class WorkerLostError(FgfastError):
    """A worker process died, and none can take its place.

    Args:
        seat: which.
        what: happened to it.
    """

    def __init__(self, seat: str, what: str) -> None:
        super().__init__(
            f"{seat} {what}. Nothing finished is lost: start the same command again, with another --devices where a "
            "device is broken, or with --in-process to see the fault itself"
        )


class DeviceMemoryError(FgfastError):
    """A device has not enough memory for a batch. A smaller one may fit; the process can go on."""


class DeviceFailedError(FgfastError):
    """A device failed. The process that used it must end: CUDA gives it no working device any more."""


class OutputFailedError(FgfastError):
    """The output cannot be written any more (disk full, read-only, gone)."""


class SampleError(FgfastError):
    """One sample cannot be processed. Becomes its outcome; never stops a run.

    Args:
        reason: a short word for the ledger and for counting ("missing", "truncated").
        detail: a sentence for a person.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class ImageMissingError(SampleError):
    """Listed in the annotations, absent on disk."""


class ImageRefusedError(SampleError):
    """It declares more pixels than are decoded."""


class ImageBrokenError(SampleError):
    """It cannot be decoded."""
