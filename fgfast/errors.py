"""The exceptions of fgfast.

    FgfastError                      any error that fgfast raises on purpose
    ├── UsageError                   the request cannot be carried out as given (exit code 2)
    │   ├── UnknownNameError         a name is not in the allowed set
    │   ├── DatasetNotFoundError     the data set is not in the searched folders
    │   ├── OutputRefusedError       the output folder must not or cannot be used
    │   │   ├── OutputLockedError    another run is writing to the output folder
    │   │   └── SettingsDifferError  the output folder holds a run made with other settings
    │   ├── MissingExtraError        an optional dependency is not installed
    │   ├── ModelNotCachedError      a model's weights are not on this machine
    │   └── OfflineError             a file must be downloaded, and FGFAST_OFFLINE forbids it
    ├── DatasetError                 an annotation file is malformed; the message names the file and the line
    ├── DownloadError                a download failed or its checksum differs
    ├── WeightsError                 a file of weights is damaged, or of another model
    ├── GraphError                   an exported graph is damaged, of another contract, or called with wrong inputs
    │   └── ParityError              an exported graph's outputs differ from the model's
    ├── DeviceMemoryError            a device has not enough memory for a batch
    ├── DeviceFailedError            a device failed; the process that used it must end
    │   └── RecordingFailedError     a CUDA graph cannot be recorded; noted, so that a new process does not try again
    ├── WorkerLostError              a worker process died, and no other can replace it
    ├── SegmenterLostError           the process that makes masks from clicks died; the next click has a new one
    ├── SupersededError              a later click on the same image took the place of one that still waited
    ├── OutputFailedError            the output can no longer be written (disk full, read-only)
    │   └── NameRefusedError         the file system does not take the path of one file
    └── SampleError                  one sample cannot be processed; becomes its outcome, never stops a run
        ├── ImageMissingError        the image is listed in the annotations, but absent on disk
        ├── ImageRefusedError        the image, or its cut-out, has too many pixels or bytes, or too few for a model
        ├── ImageBrokenError         the image cannot be decoded
        ├── NotFiniteError           a model computes values for the image that are no numbers
        └── MaskUnusableError        the image's annotated mask is missing, of another size, or not understood

Every message states the value, what would be allowed, and what to do.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def install_command(extra: str = "", options: str = "") -> str:
    """Return the command that installs fgfast again, with an extra, from where it was installed.

    fgfast is not on PyPI, so the command never leaves it to an index to find the name.

    Args:
        extra: the extra of fgfast to install.
        options: further options of pip.
    """
    import importlib.metadata
    import json
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    try:
        record = importlib.metadata.distribution("fgfast").read_text("direct_url.json")  # PEP 610
    except importlib.metadata.PackageNotFoundError:
        record = None
    source = json.loads(record) if record else {}
    more, url = f"[{extra}]" if extra else "", source.get("url", "")
    pip = f"pip install {options}".rstrip()
    if "dir_info" in source:
        folder = url2pathname(urlsplit(url).path)
        return f'{pip} {"-e " if source["dir_info"].get("editable") else ""}"{folder}{more}"'
    if version_control := source.get("vcs_info"):
        return f'{pip} "fgfast{more} @ {version_control["vcs"]}+{url}@{version_control["commit_id"]}"'
    if url:
        return f'{pip} "fgfast{more} @ {url}"'
    return f'cd CLONE_OF_FGFAST && {pip} ".{more}"'


def runtime_command(gpu: bool, *more: str) -> str:
    """Return the command that installs the ONNX Runtime for GPUs or for the CPU, with further extras.

    The two packages share their files: installed over each other, neither works. The other one is removed first.

    Args:
        gpu: whether a GPU is to be used.
        more: further extras of fgfast.
    """
    import importlib.metadata

    try:
        importlib.metadata.version(other := "onnxruntime" if gpu else "onnxruntime-gpu")
        remove = f"pip uninstall -y {other} && "
    except importlib.metadata.PackageNotFoundError:
        remove = ""
    return remove + install_command(",".join((*more, "gpu" if gpu else "cpu")))


def _command(extra: str) -> str:
    """Return the command that installs an extra, whether or not it brings an ONNX Runtime."""
    return runtime_command(extra == "gpu") if extra in ("gpu", "cpu") else install_command(extra)


class FgfastError(Exception):
    """Any error that fgfast raises on purpose."""

    exit_code = 1

    def __reduce__(self) -> tuple[Callable[..., FgfastError], tuple[type[FgfastError], str, dict[str, Any]]]:
        """Pickle the message and attributes, so that an error crosses processes without its original arguments."""
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
    """A name is not in the allowed set; the message suggests the nearest one.

    Args:
        kind: the kind of thing named, for the message ("data set", "segmenter").
        name: the unknown name.
        allowed: the names that exist.
    """

    def __init__(self, kind: str, name: str, allowed: Iterable[str]) -> None:
        names = sorted(allowed)
        folded = {known.lower(): known for known in names}
        near = difflib.get_close_matches(name.lower(), folded, n=1)
        hint = f" Did you mean {folded[near[0]]!r}?" if near else ""
        super().__init__(f"no {kind} named {name!r}.{hint} Known: {', '.join(names)}.")


class DatasetNotFoundError(UsageError):
    """The data set is not in the searched folders; the message lists them and how to obtain the data set."""


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
        extra: the extra of fgfast that installs it.
        purpose: the feature that needs it, for the message.
    """

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package {package} of the extra {extra!r}: {_command(extra)}")


class ModelNotCachedError(UsageError):
    """A model's weights are not on this machine.

    Args:
        name: the model's name for `fgfast models`.
        title: the model's full name, for the message.
        place: the path that its file would have.
    """

    def __init__(self, name: str, title: str, place: Path) -> None:
        super().__init__(
            f"{title} is not on this machine ({place} is missing or incomplete); fetch it: fgfast models pull {name}"
        )
        self.name = name


class OfflineError(UsageError):
    """A file must be downloaded, and FGFAST_OFFLINE forbids it."""


_LONGEST = 800


class DatasetError(FgfastError):
    """An annotation file is malformed.

    Args:
        path: the annotation file.
        problem: the fault, and what was expected.
        line: 1-based line number, where there is one.
    """

    def __init__(self, path: os.PathLike[str], problem: str, line: int | None = None) -> None:
        where = f"{path}:{line}" if line else str(path)
        # It may quote what a stranger wrote, of any length.
        short = problem if len(problem) <= _LONGEST else f"{problem[: _LONGEST // 2]} ... {problem[-_LONGEST // 2 :]}"
        super().__init__(f"{where}: {short}")


class DownloadError(FgfastError):
    """A download failed or its checksum differs."""


class WeightsError(FgfastError):
    """A file of weights is damaged, or belongs to another model.

    Args:
        source: the file.
        problem: the fault, and what to do.
    """

    def __init__(self, source: Path | str, problem: str) -> None:
        super().__init__(f"{source}: {problem}")


class GraphError(FgfastError):
    """An exported graph is damaged, of another contract, or called with wrong inputs."""


class ParityError(GraphError):
    """An exported graph's outputs differ from the model's; the message names the output and the difference."""


class WorkerLostError(FgfastError):
    """A worker process died, and no other can replace it.

    Args:
        worker: the worker's name.
        what: the predicate of the message, e.g. "died while it loaded the models".
    """

    def __init__(self, worker: str, what: str) -> None:
        super().__init__(
            f"{worker} {what}. Finished images are kept: start the same command again, with another --devices where a "
            "device is broken, or with --in-process to see the error itself"
        )


class SegmenterLostError(FgfastError):
    """The process that makes masks from clicks died, or took too long and was ended; a new one takes its place."""


class SupersededError(FgfastError):
    """A later click on the same image came before this one was computed. Its result would never be seen."""


class DeviceMemoryError(FgfastError):
    """A device has not enough memory for a batch. A smaller batch may fit; the process can continue."""


class DeviceFailedError(FgfastError):
    """A device failed. The process that used it must end, because CUDA gives it no working device again."""


class RecordingFailedError(DeviceFailedError):
    """A CUDA graph cannot be recorded, which damages torch. A new process does not try again, as a note was stored."""


class OutputFailedError(FgfastError):
    """The output can no longer be written (disk full, read-only, gone)."""


BAD_NAME = "bad name"
"""The reason of an image that fails with NameRefusedError."""


class NameRefusedError(OutputFailedError):
    """The file system does not take the path of one file (too long, the name of a folder); others can be written."""


LINK_OUT = "link out of the data set"
"""The reason of an image whose file, or mask, is behind a link that leads out of the data set."""


class SampleError(FgfastError):
    """One sample cannot be processed. The error becomes the sample's outcome and never stops a run.

    Args:
        reason: a short term for the ledger and for counting ("missing", "truncated").
        detail: a sentence for a person.

    Attributes:
        warnings: what libraries warned about before, a few short texts.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.warnings: tuple[str, ...] = ()


class ImageMissingError(SampleError):
    """The image is listed in the annotations, but absent on disk."""


class ImageRefusedError(SampleError):
    """The image, or its cut-out, has more pixels or bytes than are handled, or too few for a model."""


class ImageBrokenError(SampleError):
    """The image cannot be decoded."""


class MaskUnusableError(SampleError):
    """The image's annotated mask is missing, of another size, or not understood."""


class NotFiniteError(SampleError):
    """A model computes values for the image that are no numbers (NaN, infinite).

    Args:
        outputs: the names of the model's outputs that hold them.
    """

    def __init__(self, outputs: Iterable[str]) -> None:
        super().__init__(
            "nan",
            f"the model gives no numbers (NaN or infinite) in its {' and '.join(outputs)}; try --precision fp32, check "
            "the weights (fgfast models verify), or use another model",
        )
