"""Depth from one image, by networks of transformers: DPT (Ranftl et al., 2021), Depth Anything (Yang et al., 2024).

The weights are a folder as `save_pretrained` leaves it, or a repository of the Hugging Face hub in the hub's cache;
nothing is fetched here.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np

from fgfast.errors import MissingExtraError, NotFiniteError, UsageError, WeightsError
from fgfast.files import read_regular
from fgfast.models.files import digests
from fgfast.models.files.hub_folders import folder_of
from fgfast.records import Float32, UInt8

SMALLEST = "depth-anything/Depth-Anything-V2-Small-hf"
"""The repository of a small network, 25 million weights, Apache-2.0."""

_KINDS = ("dpt", "depth_anything")
_PACKAGES = ("torch", "transformers")
_EXTRA, _PURPOSE = "mesh", "a depth model (fgfast expand mesh --model)"
_WEIGHTS, _PROCESSOR = "model.safetensors", "preprocessor_config.json"
_MOST_BYTES = 1 << 20
# Where a folder does not say it: ImageNet's, of values in 0..1.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Sides of the network's input that make sense; one patch is 14 or 16 pixels.
_SIDES = range(14, 2049)


def find(model: str) -> Path:
    """Return the folder of a network's files.

    Args:
        model: a folder, or owner/name of a repository in the hub's cache.

    Raises:
        MissingExtraError: torch or transformers is not installed.
        UsageError: it is neither, or the folder lacks a file.
        WeightsError: its files configure something else than a network.
    """
    for package in _PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, _EXTRA, _PURPOSE)
    return folder_of(model, "a depth model", SMALLEST)


def fingerprint(folder: Path) -> dict[str, str]:
    """Return what depths depend on besides the image: digests of the files, and the libraries' versions."""
    names = [name for name in ("config.json", _PROCESSOR, _WEIGHTS) if (folder / name).is_file()]
    return {name: digests.current(folder / name) for name in names} | {
        name: importlib.metadata.version(name) for name in _PACKAGES
    }


class Depth:
    """A depth model on one device. Threads may share it.

    Args:
        folder: of the network's files.
        device: "cpu", or a GPU as "cuda" or "cuda:1".

    Raises:
        MissingExtraError, UsageError, WeightsError: the network cannot be loaded.
    """

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        for package in _PACKAGES:
            if importlib.util.find_spec(package) is None:
                raise MissingExtraError(package, _EXTRA, _PURPOSE)
        self._torch: Any = importlib.import_module("torch")
        from fgfast.backends.torch_flags import set_flags

        set_flags()
        if device.startswith("cuda") and not self._torch.cuda.is_available():
            raise UsageError(f"there is no GPU for the device {device!r}; use cpu")
        self._network = _network(folder).float().eval().to(device)
        self._metric = getattr(self._network.config, "depth_estimation_type", "relative") == "metric"
        self._side, self._mean, self._std = _input_of(folder, self._network.config)
        self._device = device

    def __call__(self, pixels: UInt8) -> Float32:
        """Return how near each pixel is: (N, N) float32, larger is nearer, without unit.

        Args:
            pixels: (N, N, 3) uint8 RGB, a square image.

        Raises:
            NotFiniteError: the network computes values that are no numbers.
        """
        import cv2
        from PIL import Image

        torch, side = self._torch, pixels.shape[0]
        scaled = Image.fromarray(pixels).resize((self._side, self._side), Image.Resampling.BICUBIC)
        values = (np.asarray(scaled, np.float32) / 255 - self._mean) / self._std
        inputs = torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)[None])).to(self._device)
        with torch.inference_mode():
            found = self._network(pixel_values=inputs).predicted_depth[0].float().cpu().numpy()
        if not np.isfinite(found).all():
            raise NotFiniteError(["predicted_depth"])
        # Metric networks give the distance; its inverse is what the others give.
        near = 1 / np.maximum(found, 1e-6) if self._metric else found
        return np.asarray(cv2.resize(near, (side, side), interpolation=cv2.INTER_LINEAR), np.float32)


def _network(folder: Path) -> Any:
    """Load the network; only its weights and its configuration are read."""
    transformers = importlib.import_module("transformers")
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever the library makes of files that are none
        raise WeightsError(folder, f"has no configuration of a depth model: {error}") from error
    if config.model_type not in _KINDS:
        raise WeightsError(folder, f"is of the type {config.model_type!r}; {' and '.join(_KINDS)} are known")
    try:
        return transformers.AutoModelForDepthEstimation.from_pretrained(
            folder, config=config, local_files_only=True, use_safetensors=True, trust_remote_code=False
        )
    except Exception as error:
        raise WeightsError(folder / _WEIGHTS, f"cannot be loaded: {error}") from error


def _input_of(folder: Path, config: Any) -> tuple[int, Float32, Float32]:
    """Return the side of the network's input in pixels, and mean and deviation of its values, (3,) each."""
    file = folder / _PROCESSOR
    try:
        said = json.loads(read_regular(file, _MOST_BYTES)) if file.is_file() else {}
        size = said.get("size") or {}
        side = size.get("height") or size.get("shortest_edge") or getattr(config, "image_size", None) or 518
        mean, std = (np.array(said.get(k) or v, np.float32) for k, v in (("image_mean", _MEAN), ("image_std", _STD)))
        patch = int(getattr(config, "patch_size", None) or 14)
        side = max(round(int(side) / patch), 1) * patch
        if side not in _SIDES or mean.shape != (3,) or std.shape != (3,) or not (std > 0).all():
            raise ValueError(f"side {side}, mean {mean}, deviation {std}")
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(file, f"does not say how images become the network's input: {error}") from error
    return side, mean, std
