"""Canvases, the padded input sizes of detectors: which session computes an image, which images share a batch."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from fgfast.backends.session import Session
from fgfast.errors import GraphError
from fgfast.graphs import Contract
from fgfast.records import Size

# SIZE_DIVISIBILITY of the references' pyramid backbones: the stride of their last map.
CANVAS_MULTIPLE = 32

# Pixels in which the longer edge of a canvas grows where images of several sizes are to share one. With a shorter
# edge of 800, 4:3, 3:2 and 16:9 end a few pixels below a multiple; others lose 3 % on average.
BUCKET_STEP = 64


def canvas_of(sizes: Sequence[Size], multiple: int = CANVAS_MULTIPLE) -> Size:
    """The smallest canvas in steps of `multiple` pixels that holds all images of these sizes, in pixels."""
    if multiple % CANVAS_MULTIPLE:
        raise ValueError(f"a canvas grows in multiples of {CANVAS_MULTIPLE}, not of {multiple}")
    height, width = (max(size[axis] for size in sizes) for axis in (0, 1))
    return Size(-(-height // multiple) * multiple, -(-width // multiple) * multiple)


class Canvases(Protocol):
    """Sessions of a detector by canvas.

    Attributes:
        device: of all of them, as torch names it.
        batch: most images of any call.
    """

    device: str
    batch: int

    @abstractmethod
    def bucket(self, size: Size) -> Size:
        """The canvas that a resized image of this size goes on; quick."""

    @abstractmethod
    def contract(self, canvas: Size) -> Contract:
        """Of the session that computes a full batch on this canvas; quick."""

    @abstractmethod
    def takes(self, canvas: Size, rows: int) -> int:
        """How many images the session for `rows` images computes: as many, or those of its fixed shapes; quick."""

    @abstractmethod
    def session(self, canvas: Size, rows: int) -> Session:
        """What computes `rows` images on this canvas; loading or compiling it may take a while."""

    @abstractmethod
    def spread(self, sizes: Sequence[Size]) -> list[tuple[Size, list[int]]]:
        """Distribute resized images of these sizes at hand: canvases, and the places of the images on each."""

    def shrink(self) -> None:
        """A full batch did not fit into the device's memory. Only matters where shapes are fixed."""
        return

    def share(self, sizes: Sequence[Size]) -> list[tuple[Session, list[int]]]:
        """The same as `spread`, with the sessions themselves."""
        return [(self.session(canvas, len(places)), places) for canvas, places in self.spread(sizes)]


class AnyCanvas(Canvases):
    """One session for every canvas, made when it is needed: PyTorch's, which costs nothing to make.

    Args:
        make: the session for a canvas and a number of images.
        multiple: canvases grow in these steps, pixels; results do not depend on it.
        batch: most images of a bucket. One image has its own canvas; where there are more, the longer edge grows
            in steps of BUCKET_STEP, so that there are fewer buckets.
        device: of the sessions.
    """

    def __init__(
        self,
        make: Callable[[Size, int], Session],
        multiple: int = CANVAS_MULTIPLE,
        batch: int = 1,
        device: str = "cpu",
    ) -> None:
        self.make, self.multiple, self.batch, self.device = make, multiple, batch, device

    def bucket(self, size: Size) -> Size:
        """An image's does not depend on what is in the batch with it."""
        height, width = canvas = canvas_of([size], self.multiple)
        if self.batch == 1:
            return canvas
        longer = -(-max(height, width) // BUCKET_STEP) * BUCKET_STEP
        return Size(height, longer) if width >= height else Size(longer, width)

    def contract(self, canvas: Size) -> Contract:
        """The contract of the session for a full batch."""
        return self.make(canvas, self.batch).contract

    def takes(self, canvas: Size, rows: int) -> int:
        """As many as there are."""
        return rows

    def session(self, canvas: Size, rows: int) -> Session:
        """A session for this canvas and number of images."""
        return self.make(canvas, rows)

    def spread(self, sizes: Sequence[Size]) -> list[tuple[Size, list[int]]]:
        """All images together, on the smallest canvas that holds them."""
        return [(canvas_of(list(sizes), self.multiple), list(range(len(sizes))))] if sizes else []


@dataclass(frozen=True, slots=True)
class Fixed:
    """A graph of fixed shapes, and how to get its session."""

    contract: Contract
    load: Callable[[], Session]

    @property
    def batch(self) -> int:
        """Images per call."""
        return int(self.contract.inputs[0].shape[0])


class FixedCanvases(Canvases):
    """Graphs of fixed shapes, loaded when they are needed.

    Args:
        graphs: the canvases there are, for about so many images per call.
        batch: what to ask it for.
        device: of the sessions.
    """

    def __init__(self, graphs: Callable[[int], Mapping[Size, Fixed]], batch: int = 1, device: str = "cpu") -> None:
        self.device, self._graphs, self._asked = device, graphs, batch
        self._by_canvas = dict(graphs(batch))
        self._loaded: dict[Size, Session] = {}
        self._loading = threading.Lock()

    @property
    def batch(self) -> int:  # type: ignore[override]
        """Most images of any call."""
        return max(graph.batch for graph in self._by_canvas.values())

    def bucket(self, size: Size) -> Size:
        """The smallest canvas that holds the image."""
        return smallest(self._by_canvas, size)

    def contract(self, canvas: Size) -> Contract:
        """The contract of the session for a full batch."""
        return self._by_canvas[canvas].contract

    def takes(self, canvas: Size, rows: int) -> int:
        """Always the same number."""
        return self._by_canvas[canvas].batch

    def session(self, canvas: Size, rows: int) -> Session:
        """The session of this canvas, always of the same number of images."""
        with self._loading:
            if canvas not in self._loaded:
                self._loaded[canvas] = self._by_canvas[canvas].load()
            return self._loaded[canvas]

    def spread(self, sizes: Sequence[Size]) -> list[tuple[Size, list[int]]]:
        """Each image on the smallest canvas that holds it, as many at a time as the graph takes."""
        by_canvas: dict[Size, list[int]] = {}
        for place, size in enumerate(sizes):
            by_canvas.setdefault(self.bucket(size), []).append(place)
        shares = []
        for canvas, places in by_canvas.items():
            step = self._by_canvas[canvas].batch
            shares += [(canvas, places[n : n + step]) for n in range(0, len(places), step)]
        return shares

    def shrink(self) -> None:
        """From now on graphs for half as many images, where there are some; what was loaded is closed."""
        if self._asked == 1:
            return
        with self._loading:
            for session in self._loaded.values():
                session.close()
            self._loaded.clear()
            self._asked //= 2
            self._by_canvas = dict(self._graphs(self._asked))


def smallest(canvases: Mapping[Size, object] | Sequence[Size], size: Size) -> Size:
    """The canvas with the fewest pixels that holds an image.

    Raises:
        GraphError: none does; says which to export.
    """
    holding = [c for c in canvases if c[0] >= size[0] and c[1] >= size[1]]
    if not holding:
        height, width = canvas_of([size])
        raise GraphError(
            f"no exported canvas holds an image of {size[0]}x{size[1]} (height x width); there are "
            f"{sorted(map(tuple, canvases))}: export {height}x{width} as well "
            f"(fgfast export MODEL --canvas {height}x{width})"
        )
    return min(holding, key=lambda canvas: canvas[0] * canvas[1])
