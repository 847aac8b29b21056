"""Image-to-image models of diffusers: found on this machine, looked through, loaded at first use, called one by one.

diffusers loads what a folder's model_index.json names, and imports Python files that lie there. Here only classes of
diffusers and transformers are loaded, from safetensors, and nothing is fetched.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from fgfast.errors import MissingExtraError, SampleError, UsageError, WeightsError
from fgfast.files import read_regular
from fgfast.records import UInt8
from fgfast.transfer import digest_of

PACKAGES = ("torch", "transformers", "diffusers")
_EXTRA = "styles"
_INDEX = "model_index.json"
# An index has a few dozen lines.
_MOST_BYTES = 1 << 20
# Packages whose classes an index may name. Of "stable_diffusion" and the like, diffusers' own pipelines, is only the
# checker of what is shown.
_LIBRARIES = ("diffusers", "transformers")
_CHECKERS = ("StableDiffusionSafetyChecker",)
# Sides of a model's image are multiples of this: 8 pixels a cell of the encoder, 8 cells the deepest of the network.
_MULTIPLE = 64
# One at a time: a pipeline's scheduler counts its steps in itself.
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Model:
    """A model on this machine.

    Attributes:
        folder: its folder.
        digest: SHA-256 of its files.
    """

    folder: Path
    digest: str


def versions() -> dict[str, str]:
    """Return the versions of the packages, which change what is made."""
    return {name: importlib.metadata.version(name) for name in ("torch", "diffusers")}


def device_of(name: str) -> str:
    """Return the device of torch that a name means; "auto" is the first GPU where there is one, else the CPU.

    Raises:
        UsageError: it is none, or not here.
    """
    import torch

    there = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    if name == "auto":
        return there[1] if len(there) > 1 else "cpu"
    found = "cuda:0" if name == "cuda" else name
    if found not in there:
        raise UsageError(f"device {name!r} is not here: torch finds {', '.join(there)}")
    return found


def model_of(name: str) -> Model:
    """Find a model: a folder, or OWNER/NAME in the cache of the Hugging Face hub.

    Raises:
        MissingExtraError: a package is not installed.
        UsageError: it is not there; the message says how to fetch it.
        WeightsError: it would load something else than its own weights.
    """
    for package in PACKAGES:
        if find_spec(package) is None:
            raise MissingExtraError(package, _EXTRA, "fgfast expand styles --model")
    folder = Path(name).expanduser()
    if not folder.is_dir():
        folder = _cached(name)
    if not (folder / _INDEX).is_file():
        raise UsageError(f"{folder} is no model of diffusers: there is no {_INDEX} in it")
    _check(folder)
    return Model(folder.absolute(), _digest(folder))


def _cached(name: str) -> Path:
    """Return the folder of a model in the hub's cache."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except Exception as error:  # its own errors, by version
        raise UsageError(
            f"there is no model {name!r} on this machine: it is neither a folder nor in the cache of the Hugging Face "
            f"hub; fetch it with: hf download {name}"
        ) from error


def _check(folder: Path) -> None:
    """Raise unless the index names classes of diffusers and transformers alone, and no Python file is there."""
    index = folder / _INDEX
    try:
        content = json.loads(read_regular(index, _MOST_BYTES))
        problem = next(_problems(content), "")
    except (OSError, ValueError, RecursionError) as error:
        problem = f"cannot be read ({getattr(error, 'strerror', None) or error or type(error).__name__})"
    if problem:
        raise WeightsError(index, f"{problem}; use the model as its authors published it")
    for file in _files(folder):
        if file.suffix == ".py":
            raise WeightsError(file, "is a program, which would be run when the model is loaded; remove it")


def _problems(content: Any) -> Iterator[str]:
    """Yield what an index must not hold."""
    if not isinstance(content, dict) or not isinstance(content.get("_class_name"), str):
        yield "is no index of a pipeline: it has no _class_name"
        return
    for name, value in content.items():
        if not isinstance(value, list) or name.startswith("_") or value == [None, None]:
            continue
        known = len(value) == 2 and all(isinstance(part, str) for part in value)
        if not known or (value[0] not in _LIBRARIES and value[1] not in _CHECKERS):
            yield f"names {json.dumps(value)[:80]} for {str(name)[:40]!r}, no class of {' or '.join(_LIBRARIES)}"


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files of a model, in order; the hub's cache links them to their content."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in sorted(names) if not name.startswith("."))


def _digest(folder: Path) -> str:
    """Return the SHA-256 of the names and contents of a model's files that are loaded."""
    whole = hashlib.sha256()
    for file in _files(folder):
        if file.suffix in (".json", ".safetensors", ".txt", ".model"):
            whole.update(f"{file.relative_to(folder).as_posix()}\0{digest_of(file)}\n".encode())
    return whole.hexdigest()


@dataclass(frozen=True, slots=True)
class Diffusion:
    """A model, and how it is called. It is loaded when it is first called in a process.

    Attributes:
        folder: its folder.
        device: "auto", or a device of torch.
        strength: 0..1, how far the result may leave the image.
        steps: of the scheduler, for a strength of 1.
        guidance: weight of the prompt.
        side: the longer side of the model's image, in pixels.
    """

    folder: str
    device: str
    strength: float
    steps: int
    guidance: float
    side: int

    def redraw(self, pixels: UInt8, prompt: str, seed: int) -> tuple[UInt8, bool]:
        """Redraw an image.

        Args:
            pixels: (H, W, 3) uint8.
            prompt: what to make.
            seed: of the noise, 0 .. 2^63 - 1; the image has a generator of its own.

        Returns:
            (H, W, 3) uint8, and whether the model's safety checker hid it.

        Raises:
            SampleError: the model cannot be loaded, or called with the image.
        """
        import torch
        from PIL import Image

        size = Image.fromarray(pixels).size
        scale = self.side / max(size)
        wanted = tuple(max(1, round(side * scale / _MULTIPLE)) * _MULTIPLE for side in size)
        image = Image.fromarray(pixels).resize((wanted[0], wanted[1]), Image.Resampling.LANCZOS)
        with _lock:
            pipeline = _loaded(self.folder, self.device)
            generator = torch.Generator("cpu").manual_seed(seed)  # the same noise on every device
            try:
                result = pipeline(
                    prompt=prompt,
                    image=image,
                    strength=self.strength,
                    num_inference_steps=self.steps,
                    guidance_scale=self.guidance,
                    generator=generator,
                )
            except (RuntimeError, ValueError, TypeError) as error:
                raise SampleError("model failed", f"the model cannot redraw it: {error}") from error
        hidden = bool(any(getattr(result, "nsfw_content_detected", None) or ()))
        made = result.images[0].convert("RGB").resize(size, Image.Resampling.LANCZOS)
        return np.asarray(made), hidden


@cache
def _loaded(folder: str, device: str) -> Any:
    """Load a model; callers hold the lock."""
    import torch
    from diffusers import AutoPipelineForImage2Image

    where = device_of(device)
    if where == "cpu":
        torch.set_num_threads(1)  # sums are rounded by the number of threads, which the number of workers decides
    try:
        pipeline = AutoPipelineForImage2Image.from_pretrained(
            folder,
            torch_dtype=torch.float32 if where == "cpu" else torch.float16,
            use_safetensors=True,
            local_files_only=True,
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline.to(where)
    except Exception as error:  # diffusers raises many kinds
        raise SampleError(
            "model not loaded", f"{folder} cannot be loaded as an image-to-image model of diffusers: {error}"
        ) from error
