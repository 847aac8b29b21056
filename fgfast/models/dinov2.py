"""Patch features of DINOv2 (Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", 2023).

The network is transformers' Dinov2Model or Dinov2WithRegistersModel. Its weights are a folder as `save_pretrained`
leaves it, or a repository of the Hugging Face hub in the hub's cache; nothing is fetched here.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from fgfast.errors import MissingExtraError, UsageError, WeightsError, install_command
from fgfast.models.files import digests
from fgfast.models.files.hub_folders import folder_of
from fgfast.ops.parts import grid_of
from fgfast.records import Float32, Size, UInt8

SMALLEST = "facebook/dinov2-small"
"""The repository of the smallest network, ViT-S/14."""

LONGEST = 518
"""Pixels of the longer side of the network's input, 37 patches of 14: the size that DINOv2 was trained at last."""

# image_mean and image_std of facebook/dinov2-*/preprocessor_config.json: ImageNet's, of values in 0..1.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CLASSES = {"dinov2": "Dinov2Model", "dinov2_with_registers": "Dinov2WithRegistersModel"}
_WEIGHTS = "model.safetensors"
_EXTRA, _PURPOSE = "parts", "DINOv2"


def find(model: str) -> Path:
    """Return the folder of a network's files.

    Args:
        model: a folder, or owner/name of a repository in the hub's cache.

    Raises:
        UsageError: it is neither, or the folder lacks a file.
        MissingExtraError: torch or transformers is not installed.
        WeightsError: its files configure something else than a network.
    """
    for package in ("torch", "transformers"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, _EXTRA, _PURPOSE)
    return folder_of(model, "a DINOv2", SMALLEST)


def fingerprint(folder: Path) -> dict[str, str]:
    """Return what features depend on besides the image: the digest of the weights, and the libraries' versions."""
    import importlib.metadata

    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers")}
    return {"weights": digests.current(folder / _WEIGHTS), **versions}


def check_device(device: str) -> None:
    """Raise UsageError where a device is a GPU, and there is none; torch is imported only for a GPU."""
    if device.startswith("cuda") and not importlib.import_module("torch").cuda.is_available():
        raise UsageError(f"there is no GPU for --device {device}; use --device cpu")


class PatchFeatures:
    """A DINOv2 on one device. Threads may share it.

    Args:
        folder: of the network's files.
        device: "cpu", or a GPU as "cuda" or "cuda:1".

    Attributes:
        patch: pixels of a patch's side.

    Raises:
        MissingExtraError, UsageError, WeightsError: the network cannot be loaded.
    """

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        try:
            self._torch: Any = importlib.import_module("torch")
        except ModuleNotFoundError as error:
            raise MissingExtraError("torch", _EXTRA, _PURPOSE) from error
        from fgfast.backends.torch_flags import set_flags

        set_flags()
        check_device(device)
        self._network = _network(folder, self._torch).eval().to(device)
        self._device = device
        self.patch = int(self._network.config.patch_size)

    def grid(self, size: Size) -> Size:
        """Return the patches of an image of this size, in pixels: rows and columns."""
        return grid_of(size, LONGEST // self.patch)

    def __call__(self, pixels: UInt8) -> Float32:
        """Return the features of an image's patches, each of length 1: (rows, columns, D) float32.

        They are the patch tokens of the last layer after its layer norm. The image is scaled to whole patches
        (bicubic, as DINOv2's own evaluation does), which changes its proportions by less than half a patch.

        Args:
            pixels: (H, W, 3) uint8 RGB.
        """
        from PIL import Image

        torch = self._torch
        grid = self.grid(Size(*pixels.shape[:2]))
        shape = (grid.width * self.patch, grid.height * self.patch)
        scaled = np.asarray(Image.fromarray(pixels).resize(shape, Image.Resampling.BICUBIC), np.float32) / 255
        values = (scaled - np.array(_MEAN, np.float32)) / np.array(_STD, np.float32)
        inputs = torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)[None])).to(self._device)
        with torch.inference_mode():
            tokens = self._network(pixel_values=inputs).last_hidden_state[0]
            # The class token and the registers come first.
            found = torch.nn.functional.normalize(tokens[len(tokens) - grid.height * grid.width :].float(), dim=-1)
        return np.asarray(found.cpu().numpy().reshape(*grid, -1), np.float32)


def _network(folder: Path, torch: Any) -> Any:
    """Load the network in float32; only its weights and its configuration are read."""
    try:
        transformers = importlib.import_module("transformers")
    except ModuleNotFoundError as error:
        raise MissingExtraError("transformers", _EXTRA, _PURPOSE) from error
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever the library makes of files that are none
        raise WeightsError(folder, f"has no configuration of DINOv2: {error}") from error
    name = _CLASSES.get(str(config.model_type))
    if name is None:
        raise WeightsError(folder, f"is of the type {config.model_type!r}; {' and '.join(_CLASSES)} are known")
    try:
        kind = getattr(transformers, name)
    except (ImportError, AttributeError, RuntimeError) as error:
        raise UsageError(
            f"transformers {transformers.__version__} cannot load {name}: {error} Either it is too old "
            f"({install_command(_EXTRA, '-U')}), or torchvision, which is not needed, does not match the installed "
            "torch (pip uninstall torchvision)"
        ) from error
    try:
        network, report = kind.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            weights_only=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except Exception as error:
        raise WeightsError(folder, f"cannot be loaded as DINOv2: {error}") from error
    if missing := sorted(report["missing_keys"]):
        raise WeightsError(folder / _WEIGHTS, f"lacks {len(missing)} weights, the first are {missing[:3]}")
    return network
