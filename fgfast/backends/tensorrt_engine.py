"""The package tensorrt, and engine files: their names, and which of them are trusted."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from functools import cache
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

from fgfast import keyed_notes
from fgfast.backends.manifest import Manifest, masks_unproven
from fgfast.errors import GraphError, MissingExtraError, UsageError
from fgfast.graphs import Contract
from fgfast.keyed_notes import Stamp
from fgfast.writing import Target
from fgfast.writing import remove as remove_file

log = logging.getLogger("fgfast")

_KIND = "engine"
_AGAIN = "build it again from its ONNX file (fgfast export)"


class Span(NamedTuple):
    """The range of a free size: its minimum, its usual value, for which kernels are chosen, and its maximum."""

    low: int
    usual: int
    high: int


# The free sizes of the contracts. A wider span costs memory, which is allocated for the maximum.
# classes: LVIS has 1203 names and a background. text: BERT's tokens, of which there are 256 at most.
SPANS = MappingProxyType(
    {
        "batch": Span(1, 4, 8),
        "images": Span(1, 4, 8),
        "pairs": Span(1, 8, 64),
        "classes": Span(2, 1204, 4096),
        "text": Span(3, 16, 256),
    }
)


def load() -> Any:
    """Import the package tensorrt.

    Raises:
        MissingExtraError: it is not installed.
        GraphError: it is installed but cannot be loaded; the message gives the reason.
    """
    try:
        trt: Any = import_module("tensorrt")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "tensorrt":
            raise GraphError(f"TensorRT cannot be loaded: {error}; reinstall it (pip install tensorrt)") from error
        raise MissingExtraError("tensorrt", "gpu", "running TensorRT engines") from None
    except Exception as error:  # a library is missing, or was built for another CUDA version
        raise GraphError(f"TensorRT cannot be loaded: {error}; reinstall it (pip install tensorrt)") from error
    if major(trt) < 10:
        raise GraphError(f"TensorRT {trt.__version__} is too old; install 10 or newer (pip install 'tensorrt>=10')")
    return trt


def version() -> str:
    """Return TensorRT's version; raises the errors of `load`."""
    return str(load().__version__)


def major(trt: Any) -> int:
    """Return TensorRT's major version."""
    return int(str(trt.__version__).partition(".")[0])


def gpu_of(device: str | torch.device) -> torch.device:
    """Return the GPU with its number; "cuda" becomes the current one.

    Raises:
        UsageError: the device is not a GPU, or torch sees none.
    """
    chosen = torch.device(device)
    if chosen.type != "cuda" or not torch.cuda.is_available():
        raise UsageError(
            f"TensorRT runs on a GPU that torch can use, not on {chosen}; `fgfast doctor` lists what this machine has"
        )
    return torch.device("cuda", torch.cuda.current_device() if chosen.index is None else chosen.index)


@cache
def messages(trt: Any) -> Any:
    """Return TensorRT's logger, one per process, as TensorRT requires; `take()` returns the errors since the last call.

    The first call also registers TensorRT's built-in plugins, which the ONNX parser uses for some operators.
    """

    class Messages(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if int(severity) <= int(trt.ILogger.Severity.ERROR):
                self.errors.append(msg)
            log.debug("TensorRT: %s", msg)

        def take(self) -> str:
            errors, self.errors = self.errors, []
            return "; ".join(errors) or "it gives no reason"

    logger = Messages()
    trt.init_libnvinfer_plugins(logger, "")
    return logger


def gpu_name(device: str | torch.device) -> str:
    """Return a GPU's name and compute capability in characters that are valid in file names."""
    gpu = gpu_of(device)
    large, small = torch.cuda.get_device_capability(gpu)
    plain = re.sub(r"[^a-z0-9]+", "-", str(torch.cuda.get_device_name(gpu)).lower()).strip("-")
    return f"{plain}-sm{large}{small}"


def engine_path(graph: Path, manifest: Manifest, device: str | torch.device = "cuda:0") -> Path:
    """Return the path of an ONNX file's engine for one GPU; its name contains the GPU, TensorRT's version and a hash.

    Args:
        graph: the ONNX file.
        manifest: of the ONNX file.
        device: the GPU.

    Raises:
        MissingExtraError, GraphError: TensorRT is not installed, or cannot be loaded.
        UsageError: the device is not a GPU.
    """
    used = {name: SPANS.get(name) for name in manifest.contract.free}
    source = json.dumps([manifest.files, manifest.contract.signature(), used], sort_keys=True)
    digest = hashlib.sha256(source.encode()).hexdigest()
    return graph.with_name(f"{engine_prefix(graph, device)}{version()}-{digest[:16]}.engine")


def engine_prefix(graph: Path, device: str | torch.device) -> str:
    """Return the prefix of the file names of a graph's engines for one GPU."""
    return f"{graph.stem}-{gpu_name(device)}-trt"


def manifest_of(engine: Path) -> Path:
    """Return the path of an engine's manifest."""
    return engine.with_suffix(".json")


def note_of(engine: Path) -> Path:
    """Return the path of the note that says that this user's fgfast built an engine here."""
    return engine.with_name(f"{engine.name}.built")


def record(path: Path, contract: Contract, device: str | torch.device, digest: str) -> None:
    """Note that an engine was built and checked here, so that `trusted` takes it from now on.

    Args:
        path: of the engine.
        contract: that it was built for.
        device: the GPU.
        digest: SHA-256 of the engine.
    """
    keyed_notes.write(note_of(path), _KIND, path, Stamp.of(path), _facts(contract, device, digest))


def remove(path: Path) -> None:
    """Remove an engine, its manifest and its note."""
    for file in (path, manifest_of(path)):
        remove_file(Target.file(file))
    keyed_notes.remove(note_of(path))


def built_here(path: Path, contract: Contract, device: str | torch.device) -> str:
    """Return the SHA-256 that an engine had when this user's fgfast built it here; the engine itself is not read.

    An engine is a program that TensorRT executes. Its manifest is no proof, because it comes with the engine; the note
    is one, because only this user's fgfast can write it (fgfast.keyed_notes).

    Raises:
        GraphError: it was not built here, or for something else; the message says what to do.
    """
    beside = manifest_of(path)
    if not (path.is_file() and beside.is_file()):
        missing = beside.name if path.is_file() else path.name
        raise GraphError(f"{path}: {missing} is missing, so the engine was not built here; {_AGAIN}")
    manifest = Manifest.read(beside)
    if why := masks_unproven(manifest):
        raise GraphError(f"{path} {why}; {_AGAIN}")
    if manifest.contract != contract:
        raise GraphError(f"{path} was built for another contract of {manifest.contract.graph}; {_AGAIN}")
    if manifest.code.get("tensorrt") != version():
        built = manifest.code.get("tensorrt", "an unknown version")
        raise GraphError(f"{path} was built with TensorRT {built}; this is {version()}; {_AGAIN}")
    noted = keyed_notes.read(note_of(path), _KIND, path)
    digest = str(noted.get("sha256", ""))
    if not digest or not noted.items() >= _facts(contract, device, digest).items():
        raise GraphError(
            f"{path} is not known to be built here by this user, and an engine is a program, so it is not run; {_AGAIN}"
        )
    return digest


def trusted(path: Path, contract: Contract, device: str | torch.device, digest: str | None = None) -> bytes:
    """Read an engine that this user's fgfast built and checked here; the bytes hashed are the bytes returned.

    Args:
        path: of the engine.
        contract: the contract that it must have been built for.
        device: the GPU that it must have been built for.
        digest: the SHA-256 of an engine that was built just now and is not noted yet.

    Raises:
        GraphError: it is not trusted, or was built for something else; the message says what to do.
    """
    wanted = digest or built_here(path, contract, device)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise GraphError(f"{path} cannot be read ({error.strerror}); {_AGAIN}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != wanted:
        raise GraphError(f"{path} has SHA-256 {found} instead of {wanted}: it was changed; {_AGAIN}")
    return content


def _facts(contract: Contract, device: str | torch.device, digest: str) -> dict[str, str]:
    signature = json.dumps(contract.signature(), sort_keys=True)
    return {
        "sha256": digest,
        "contract": hashlib.sha256(signature.encode()).hexdigest(),
        "tensorrt": version(),
        "gpu": gpu_name(device),
    }
