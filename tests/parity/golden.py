"""Golden fixture files: stored arrays, the random weights they were computed with, and the comparison with ours."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from fgfast.models.sam.transform import resized_size
from fgfast.models.serving.batches import resized
from fgfast.records import UInt8
from fgfast.tolerances import Tolerance

_ROOT = Path(__file__).resolve().parents[2]
PORTABLE = _ROOT / "tests" / "data" / "golden"
# The large set is not part of the repository; FGFAST_GOLDEN says where it lies.
FULL = Path(os.environ.get("FGFAST_GOLDEN", _ROOT.parent / "shared" / "golden"))


@dataclass(frozen=True)
class Golden:
    """One fixture file of one folder.

    Attributes:
        folder: where it lies, with goldenweights.py and images/ beside it.
        stem: name of the file without "_golden.npz": "sam_vit_b".
    """

    folder: Path
    stem: str

    def __str__(self) -> str:
        return ("portable-" if self.folder == PORTABLE else "") + self.stem

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """All stored arrays; skips the test where the file is absent."""
        return _arrays(self.folder / f"{self.stem}_golden.npz")

    def names(self, part: str) -> set[str]:
        """Names of the arrays under `part`, without it and without sample, shape, stride, stats, channel_..."""
        suffixes = ("/sample", "/shape", "/stride", "/stats", "/channel_mean", "/channel_std")
        names = (name.removeprefix(f"{part}/") for name in self.arrays if name.startswith(f"{part}/"))
        return {functools.reduce(str.removesuffix, suffixes, name) for name in names}

    def weights(self) -> dict[str, Tensor]:
        """The random weights, float32, under the reference's keys."""
        manifest = json.loads((self.folder / f"{self.stem}_manifest.json").read_text())["keys"]
        tensor = goldenweights(self.folder).tensor
        return {key: torch.from_numpy(tensor(key, entry["shape"])) for key, entry in manifest.items()}

    def draw(self, name: str, *shape: int) -> Tensor:
        """A standard draw, float32."""
        return torch.from_numpy(goldenweights(self.folder).tensor(f"golden.{name}", shape))

    def photo(self, name: str) -> UInt8:
        """(h, w, 3) uint8 RGB."""
        with PIL.Image.open(self.folder / "images" / f"{name}.png") as file:
            return np.array(file.convert("RGB"))

    def check(self, name: str, array: Tensor, tolerance: Tolerance) -> None:
        """Compare ours with the stored array `name`: whole or sampled, and its moments where they are stored."""
        stored, ours = self.arrays, array.detach().cpu().double().numpy()
        if name in stored:
            assert ours.shape == stored[name].shape, (name, ours.shape, stored[name].shape)
            tolerance.check((ours - stored[name]).reshape(-1), name)
            return
        assert ours.shape == tuple(stored[f"{name}/shape"]), (name, ours.shape, stored[f"{name}/shape"])
        sample = ours.reshape(-1)[:: int(stored[f"{name}/stride"])]
        tolerance.check(sample - stored[f"{name}/sample"], name)
        mean, deviation, least, most = (ours.mean(), ours.std(), ours.min(), ours.max()) - stored[f"{name}/stats"][:4]
        # Neither mean nor deviation can be off by more than the root mean square of all differences.
        for moment in (mean, deviation):
            tolerance.check(np.array([moment]), f"{name}/stats")
        # An extreme is one element, which may be off by twice the root mean square of all, as in four numbers.
        for extreme in (least, most):
            tolerance.check(np.array([extreme, 0, 0, 0]), f"{name}/stats")
        if f"{name}/channel_mean" in stored:
            by_channel = ours.mean((0, 2, 3)), ours.std((0, 2, 3))
            tolerance.check(by_channel[0] - stored[f"{name}/channel_mean"], f"{name}/channel_mean")
            tolerance.check(by_channel[1] - stored[f"{name}/channel_std"], f"{name}/channel_std")


@functools.lru_cache(maxsize=4)
def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    if not path.exists():
        pytest.skip(f"no {path}; set FGFAST_GOLDEN to the folder of the full golden fixtures")
    with np.load(path) as stored:
        return dict(stored)


@functools.lru_cache(maxsize=2)
def goldenweights(folder: Path) -> ModuleType:
    """The folder's own goldenweights.py."""
    spec = importlib.util.spec_from_file_location("goldenweights", folder / "goldenweights.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def resize(pixels: Any, side: int) -> Any:
    """An image (H, W, 3) uint8 as SAM sees it: resized to a longer edge of `side`."""
    return resized(pixels, resized_size(*pixels.shape[:2], side))
