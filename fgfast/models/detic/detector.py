"""Pictures and a vocabulary to detections, through whatever computes Detic's graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fgfast.backends.session import Session
from fgfast.errors import GraphError
from fgfast.models.detic.canvas import CANVAS_MULTIPLE, canvas_of
from fgfast.models.detic.config import DeticConfig
from fgfast.models.detic.selection import Selection, select, to_stored
from fgfast.models.detic.transform import resize, resized_size
from fgfast.models.detic.vocabulary import classifier
from fgfast.records import Detections, Image, UInt8

# (height, width) in pixels.
Size = tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Detections of one picture and where they come from.

    Attributes:
        detections: in pixels of the stored picture, descending.
        classes: (N,) int64, rows of the vocabulary.
        proposal_index: (N,) int64, the proposal of each.
    """

    detections: Detections
    classes: NDArray[np.int64]
    proposal_index: NDArray[np.int64]


class Canvases(Protocol):
    """Sessions of `detic_detector` by canvas."""

    def share(self, sizes: Sequence[Size]) -> list[tuple[Session, list[int]]]:
        """Distribute resized pictures of these sizes: sessions, and the places of the pictures that each takes."""


class AnyCanvas:
    """One session for every canvas, made when it is needed: PyTorch's, which costs nothing to make.

    Args:
        make: the session for a canvas and a number of pictures.
        multiple: the canvas of a batch grows in these steps, pixels; results do not depend on it.
    """

    def __init__(self, make: Callable[[Size, int], Session], multiple: int = CANVAS_MULTIPLE) -> None:
        self.make, self.multiple = make, multiple

    def share(self, sizes: Sequence[Size]) -> list[tuple[Session, list[int]]]:
        """All pictures together, on the smallest canvas that holds them."""
        if not sizes:
            return []
        return [(self.make(canvas_of(list(sizes), self.multiple), len(sizes)), list(range(len(sizes))))]


class FixedCanvases:
    """Graphs of fixed shapes, loaded when they are needed.

    Args:
        load: the canvases there are, and how to get the session of each.
    """

    def __init__(self, load: Mapping[Size, Callable[[], Session]]) -> None:
        self.load = dict(load)
        self._loaded: dict[Size, Session] = {}

    def share(self, sizes: Sequence[Size]) -> list[tuple[Session, list[int]]]:
        """Each picture on the smallest canvas that holds it, as many at a time as the graph takes."""
        by_canvas: dict[Size, list[int]] = {}
        for place, size in enumerate(sizes):
            by_canvas.setdefault(smallest(self.load, size), []).append(place)
        shares = []
        for canvas, places in by_canvas.items():
            if canvas not in self._loaded:
                self._loaded[canvas] = self.load[canvas]()
            session = self._loaded[canvas]
            step = session.contract.inputs[0].shape[0]
            assert isinstance(step, int)
            shares += [(session, places[n : n + step]) for n in range(0, len(places), step)]
        return shares


def smallest(canvases: Mapping[Size, object] | Sequence[Size], size: Size) -> Size:
    """The canvas with the fewest pixels that holds a picture.

    Raises:
        GraphError: none does; says which to export.
    """
    holding = [c for c in canvases if c[0] >= size[0] and c[1] >= size[1]]
    if not holding:
        height, width = canvas_of([size])
        raise GraphError(
            f"no exported canvas holds a picture of {size[0]}x{size[1]} (height x width); there are "
            f"{sorted(canvases)}: export {height}x{width} as well (fgfast export MODEL --canvas {height}x{width})"
        )
    return min(holding, key=lambda canvas: canvas[0] * canvas[1])


class DeticDetector:
    """A Detic with a vocabulary: pictures in, detections in pixels of the stored pictures out.

    Args:
        canvases: what computes the graph.
        config: the model's sizes.
        names: C class names.
        embeddings: (C, 512) float32 text embeddings, CLIP ViT-B/32 of "a " + name.
        selection: what counts as a detection.
    """

    def __init__(
        self,
        canvases: Canvases,
        config: DeticConfig,
        names: Sequence[str],
        embeddings: Tensor | NDArray[np.float32],
        selection: Selection | None = None,
    ) -> None:
        if len(names) != len(embeddings):
            raise ValueError(f"{len(names)} names for {len(embeddings)} text embeddings; there must be one each")
        self.canvases, self.config, self.names = canvases, config, tuple(names)
        self.selection = selection or Selection()
        self._vocabulary = classifier(torch.as_tensor(embeddings)).contiguous()

    @torch.inference_mode()
    def __call__(self, images: Sequence[Image]) -> list[Found]:
        """The detections of each picture, as if it were alone."""
        stored = [(image.pixels.shape[0], image.pixels.shape[1]) for image in images]
        sizes = [resized_size(h, w, self.config.shorter_edge, self.config.longest_edge) for h, w in stored]
        found: dict[int, Found] = {}
        for session, places in self.canvases.share(sizes):
            resized = [resize(images[place].pixels, sizes[place]) for place in places]
            pixels, rows = on_canvas(resized, session)
            self._vocabulary = self._vocabulary.to(session.device)
            out = session.run({"pixels": pixels, "sizes": rows, "vocabulary": self._vocabulary})
            for row, place in enumerate(places):
                boxes, scores = out["boxes"][row], out["scores"][row]
                found[place] = self._found(boxes, scores, sizes[place], stored[place])
        return [found[place] for place in range(len(images))]

    def _found(self, boxes: Tensor, scores: Tensor, size: Size, stored: Size) -> Found:
        found = to_stored(select(boxes, scores, size, self.selection), size, stored)
        classes = found.classes.cpu().numpy()
        detections = Detections(
            found.boxes.cpu().numpy(), found.scores.cpu().numpy(), tuple(self.names[c] for c in classes)
        )
        return Found(detections, classes, found.proposal_index.cpu().numpy())


def on_canvas(resized: Sequence[UInt8], session: Session) -> tuple[Tensor, Tensor]:
    """Resized pictures (h, w, 3) as the session takes them: (B, H, W, 3) uint8 and (B, 2) int64, on its device.

    A batch that must be full is filled up with black pictures of the canvas's own size.
    """
    batch, height, width = (int(n) for n in session.contract.inputs[0].shape[:3])
    pixels = torch.zeros(batch, height, width, 3, dtype=torch.uint8)
    sizes = torch.tensor([[height, width]] * batch, dtype=torch.int64)
    for n, picture in enumerate(resized):
        h, w = picture.shape[:2]
        pixels[n, :h, :w] = torch.from_numpy(np.ascontiguousarray(picture))
        sizes[n, 0], sizes[n, 1] = h, w
    return pixels.to(session.device), sizes.to(session.device)
