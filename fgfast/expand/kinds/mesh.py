"""`mesh`: inputs of image-to-3D models, and a relief of the silhouette as GLB, seen from any side."""

from __future__ import annotations

import json
import math
import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgfast import ops
from fgfast.expand.kind import Planned, Product, Request, Subject, Table, option
from fgfast.io.encode import encode_png
from fgfast.io.glb import check_trimesh, glb
from fgfast.ops import raster, relief
from fgfast.ops.inside import carried_out, nearest_inside, window
from fgfast.records import Bool, Float32, UInt8

INPUTS = ("triposr", "unique3d", "rgba")
# TripoSR's run.py: the foreground's longer side is 0.85 of the image's, on a grey of 0.5, which it turns into 127.
_SHARE, _GREY = 0.85, 127
# TripoSR renders 1.9 away with a field of view of 40 degrees; its objects are about as large as ours.
_DISTANCE, _ANGLE = 1.9, math.radians(40)
# Larger textures are shrunk: 2 texels for each of at most 512 cells.
_TEXTURE = 1024
# Views are drawn at twice their size and averaged, which smooths their edges.
_FINE = 2
# Of a model's depths inside the mask, these percentiles are the back and the front; a few wild pixels do not decide.
_BACK, _FRONT = 2.0, 98.0

COLUMNS = {
    "input": "string",
    "side": "int32",
    "offset_x": "int32",
    "offset_y": "int32",
    "heights": "string",
    "closed": "bool",
    "parts": "int32",
    "vertices": "int32",
    "faces": "int32",
    "unit": "int32",
    "thickness": "float64",
}


def _no_views(options: Any) -> str:
    return "" if options.views else "there are no views"


def _no_model(options: Any) -> str:
    return "" if options.model else "there is no depth model"


@dataclass(frozen=True)
class Options:
    """The options of `mesh`."""

    inputs: str = option("triposr", "Whose inputs the images are.", choices=lambda: INPUTS)
    cells: int = option(128, "Cells of the relief along the subject's longer side.", least=2, most=512)
    model: str | None = option(
        None,
        "A depth model of transformers: a folder, or a repository in the Hugging Face hub's cache.",
        unset="the silhouette alone",
    )
    device: str = option("cpu", "Where the depth model runs: cpu, or a GPU as cuda or cuda:1.", idle=_no_model)
    depth: float = option(
        0.3, "How deep the depth model's relief is, as a share of the longer side.", least=0.01, most=2, idle=_no_model
    )
    views: int = option(0, "Views of the relief, from so many sides; 0 draws none.", least=0, most=360)
    view_size: int = option(256, "The side of a view, in pixels.", least=16, most=2048, idle=_no_views)
    elevation: float = option(0.0, "The cameras' elevation, in degrees.", least=-89, most=89, idle=_no_views)


def plan(request: Request, options: Options) -> Planned:
    """Return the plan.

    Raises:
        MissingExtraError: trimesh, or what the depth model needs, is not installed.
        UsageError: there is no such model.
        WeightsError: its files are not to be trusted, or of another kind.
    """
    from importlib.metadata import version

    check_trimesh()
    fingerprint: dict[str, Any] = {"trimesh": version("trimesh"), "relief": 1}
    folder = ""
    if options.model:
        from fgfast.models import depth

        found = depth.find(options.model)
        folder, fingerprint["model"] = str(found.absolute()), depth.fingerprint(found)
        reason = (
            f"Heights are the depths of {options.model}, which sees the subject on grey; behind, the relief is open."
        )
    else:
        reason = (
            "Heights are a guess from the silhouette: each part is as thick as it is wide, and the back mirrors it."
        )
    return Planned(
        step=Step(options, folder),
        imports=("scipy.ndimage", "trimesh"),
        fingerprint=fingerprint,
        sets=("inputs",),
        transparent=options.inputs != "triposr",
        files={"relief": ".glb"},
        folders=("views",) if options.views else (),
        tables=(Table("mesh", COLUMNS),),
        reasons=(f"Images are inputs of {options.inputs}: padded to a square, never stretched.", reason),
    )


@dataclass(frozen=True)
class Step:
    """Makes the products of one subject.

    Attributes:
        options: the options.
        folder: of the depth model's files; empty for none.
    """

    options: Options
    folder: str = ""

    def __call__(self, subject: Subject) -> Product:
        """Return the input, the relief and its views."""
        pixels, bits, options = subject.pixels, subject.bits, self.options
        if not bits.any():
            return Product(skipped="the mask is empty: there is nothing to be seen from another side")
        image, offset = model_input(pixels, bits, options.inputs)
        rows, columns = window(bits)
        inside, texture = bits[rows, columns], texture_of(pixels[rows, columns], bits[rows, columns])
        surface, parts = self._surface(pixels, bits, inside)
        several = {("views", name): data for name, data in views(surface, texture, options).items()}
        depths = surface.points[:, 2]
        row = {
            "input": options.inputs,
            "side": image.shape[0],
            "offset_x": offset[0],
            "offset_y": offset[1],
            "heights": "model" if self.folder else "silhouette",
            "closed": surface.closed,
            "parts": parts,
            "vertices": len(surface.points),
            "faces": len(surface.faces),
            "unit": max(inside.shape),
            "thickness": float(depths.max() - depths.min()),
        }
        return Product(
            images={"inputs": image},
            offset=offset,
            files={"relief": glb(surface, texture)},
            several=several,
            rows={"mesh": [row]},
        )

    def _surface(self, pixels: UInt8, bits: Bool, inside: Bool) -> tuple[relief.Surface, int]:
        """Return the relief of a subject, and of how many parts it is."""
        import cv2

        grid = relief.grid_of(inside, self.options.cells)
        parts = cv2.connectedComponents(grid.inside.astype(np.uint8), connectivity=4)[0] - 1
        if not self.folder:
            return relief.solid(grid, relief.ball_heights(grid)), parts
        near = _model(self.folder, self.options.device)
        heights = relief.sampled(depths_inside(near, pixels, bits), grid) * self.options.depth
        return relief.sheet(grid, heights), parts


def square(bits: Bool, name: str) -> tuple[int, int, int]:
    """Return x and y of the top left pixel of a mask's input, which may lie outside the image, and its side.

    Args:
        bits: (H, W) bool; not empty.
        name: one of `INPUTS`. "rgba" keeps the whole image; "unique3d" is as large as the subject, "triposr" larger.
    """
    rows, columns = (slice(0, side) for side in bits.shape) if name == "rgba" else window(bits)
    high, wide = rows.stop - rows.start, columns.stop - columns.start
    side = max(high, wide)
    if name == "triposr":
        side = int(side / _SHARE)
    return columns.start - (side - wide) // 2, rows.start - (side - high) // 2, side


def model_input(pixels: UInt8, bits: Bool, name: str) -> tuple[UInt8, tuple[int, int]]:
    """Return the input of a model, a square of one image's pixels, and (x, y) of its top left pixel in the image.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        bits: (H, W) bool; not empty.
        name: one of `INPUTS`; "triposr" is RGB on grey, the others are RGBA.
    """
    x, y, side = square(bits, name)
    whole = (x, y, x + side, y + side)
    if name == "triposr":
        return ops.composite(pixels, bits, np.full(3, _GREY, np.uint8), whole), (x, y)
    return ops.composite(pixels, bits, None, whole, alpha=True), (x, y)


def texture_of(pixels: UInt8, bits: Bool) -> UInt8:
    """Return a subject's box as a texture, (h, w, 3) uint8, without a pixel of the background, at most 1024 long.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        bits: (H, W) bool.
    """
    filled = np.ascontiguousarray(carried_out(pixels, bits))
    longer = max(bits.shape)
    if longer <= _TEXTURE:
        return filled
    high, wide = (max(1, round(side * _TEXTURE / longer)) for side in bits.shape)
    return ops.area_average(filled, (high, wide))


def depths_inside(near: Any, pixels: UInt8, bits: Bool) -> Float32:
    """Return how near the pixels of a subject's box are by a depth model, (h, w) float32, from 0 to 1.

    The model sees the subject alone, as TripoSR's input: its background has no influence.

    Args:
        near: (N, N, 3) uint8 -> (N, N) float32, larger is nearer.
        pixels: (H, W, 3) uint8 RGB.
        bits: (H, W) bool; not empty.
    """
    image, (x, y) = model_input(pixels, bits, "triposr")
    rows, columns = window(bits)
    inside = bits[rows, columns]
    found = near(image)[rows.start - y : rows.stop - y, columns.start - x : columns.stop - x]
    back, front = np.percentile(found[inside], [_BACK, _FRONT])
    shares = np.clip((found - back) / max(float(front - back), 1e-12), 0, 1)
    result: Float32 = shares.reshape(-1)[nearest_inside(inside)].astype(np.float32)
    return result


def views(surface: relief.Surface, texture: UInt8, options: Options) -> dict[str, bytes]:
    """Return the views of a surface by name, RGBA as PNG, with their cameras in transforms.json; empty for none.

    The cameras stand around the upright axis; the first looks from the front, the next from further to the right.
    transforms.json is NeRF's: camera to world, x to the right, y up, looking along -z; the world is that of the GLB.
    """
    if not options.views:
        return {}
    found: dict[str, bytes] = {}
    frames = []
    digits = max(3, len(str(options.views - 1)))
    for number in range(options.views):
        azimuth = 360 * number / options.views
        pose = raster.orbit(math.radians(azimuth), math.radians(options.elevation), _DISTANCE)
        name = f"{number:0{digits}}.png"
        found[name] = encode_png(view(surface, texture, pose, options.view_size))
        frames.append({"file_path": name, "azimuth": azimuth, "transform_matrix": pose.tolist()})
    side = options.view_size
    focal = raster.Camera(np.eye(4), _ANGLE, side).focal
    cameras = {
        "camera_model": "OPENCV",
        "camera_angle_x": _ANGLE,
        "fl_x": focal,
        "fl_y": focal,
        "cx": side / 2,
        "cy": side / 2,
        "w": side,
        "h": side,
        "elevation": options.elevation,
        "frames": frames,
    }
    found["transforms.json"] = (json.dumps(cameras, indent=1) + "\n").encode()
    return found


def view(surface: relief.Surface, texture: UInt8, pose: NDArray[np.float64], side: int) -> UInt8:
    """Return a surface as a camera with this pose sees it, (side, side, 4) uint8 RGBA."""
    camera = raster.Camera(pose, _ANGLE, _FINE * side)
    image, seen = raster.render(surface.points, surface.faces, surface.places, texture, camera)
    cells = (side, _FINE, side, _FINE)
    count = seen.reshape(cells).sum(axis=(1, 3))
    # The average of those seen; unseen ones are 0 and do not count.
    colours = image.reshape(*cells, 3).sum(axis=(1, 3)) / np.maximum(count, 1)[..., None]
    alpha = np.rint(count * (255 / _FINE**2))
    return np.dstack([np.rint(colours), alpha]).astype(np.uint8)


_loading = threading.Lock()


def _model(folder: str, device: str) -> Any:
    """Return the depth model, loaded once in each process."""
    with _loading:
        return _loaded(folder, device)


@lru_cache(maxsize=1)
def _loaded(folder: str, device: str) -> Any:
    from fgfast.models.depth import Depth

    return Depth(Path(folder), device)
