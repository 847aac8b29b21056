"""Detic in slots: one image alone is what it always was, to the bit; several together agree with it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from parity import detic_golden
from parity.detic_golden import Case, draw, settings, state
from parity.golden import PORTABLE
from parity.in_slots import alone, same_bits, together
from parity.test_detic import check_sets

from fgfast import graphs
from fgfast.backends.session import Session
from fgfast.backends.torch import TorchSession
from fgfast.errors import DeviceFailedError, DeviceMemoryError
from fgfast.models.detic import checkpoint
from fgfast.models.detic.detector import DeticDetector
from fgfast.models.detic.graph import DetectorGraph
from fgfast.models.detic.model import Detic
from fgfast.models.detic.sessions import detic_in_torch
from fgfast.models.detic.split import SplitDetic
from fgfast.models.detic.suppression import nms, suppress_on_gpu
from fgfast.models.detic.transform import Selection, pairs
from fgfast.models.serving.canvases import AnyCanvas, Canvases, Fixed, FixedCanvases
from fgfast.records import Detections, Image, Size
from fgfast.runner import run_batch

DETIC_PHOTOS = ("dog", "groceries_tall", "truck_wide")
NAMES = ("a", "b", "c")
# It holds every photo after resizing, so that all share a bucket.
SQUARE = 640


def case() -> Case:
    return Case(PORTABLE, "detic_nano_320_golden.npz", "dog")


@pytest.fixture(scope="module")
def nano() -> Detic:
    model = Detic(case().config)
    checkpoint.load(model, state(PORTABLE, "nano"))
    return model


@pytest.fixture(scope="module")
def photos() -> list[Image]:
    return [Image(detic_golden.photo(case(), name)) for name in DETIC_PHOTOS]


def detector(canvases: Canvases) -> DeticDetector:
    words = draw(PORTABLE, "text_embeddings.8", (3, 512))
    return DeticDetector(canvases, case().config, NAMES, words, settings(case())["custom_one_050"])


def check_stored(found: list[Detections], names: tuple[str, ...] = DETIC_PHOTOS) -> None:
    """Against the reference's detections, within the tolerances of all tests."""
    for name, ours in zip(names, found, strict=True):
        stored = tuple(case().arrays[f"{name}/custom_one_050/{key}"] for key in ("boxes", "scores", "classes"))
        check_sets(name, (ours.boxes, ours.scores, np.array([NAMES.index(n) for n in ours.labels])), stored)


def fixed(make: Callable[[int], Session], batch: int, device: str = "cpu") -> FixedCanvases:
    """One canvas of fixed shape, for any batch."""
    return FixedCanvases(
        lambda n: {(SQUARE, SQUARE): Fixed(graphs.detic_detector((SQUARE, SQUARE), n), partial(make, n))}, batch, device
    )


def eager(model: Detic, batch: int) -> Session:
    return TorchSession(DetectorGraph(model), graphs.detic_detector((SQUARE, SQUARE), batch))


class TestDetic:
    def test_one_image_is_what_the_call_gives(self, nano: Detic, photos: list[Image]) -> None:
        model = detector(detic_in_torch(nano))
        assert model.device == "cpu" and model.batch == 1
        for image in photos:
            assert model.rows(model.bucket(image)) == 1
            same_bits(alone(model, image), run_batch(model, [(image,)])[0])

    def test_three_images(self, nano: Detic, photos: list[Image]) -> None:
        model = detector(detic_in_torch(nano, multiple=SQUARE, batch=3))
        assert model.rows((SQUARE, SQUARE)) == model.batch == 3
        check_stored(together(model, [(image,) for image in photos]))

    @pytest.mark.parametrize("halves", [False, True], ids=["whole", "split"])
    def test_fixed_shapes_are_filled_up(self, nano: Detic, photos: list[Image], halves: bool) -> None:
        """With what the rows held before, too."""
        make = partial(SplitDetic, nano, (SQUARE, SQUARE), form="eager") if halves else partial(eager, nano)
        model = detector(fixed(make, 3))
        slot = model.slot(model.bucket(photos[0]))
        for names in (DETIC_PHOTOS, DETIC_PHOTOS[:2], DETIC_PHOTOS[2:]):
            rows = [(photos[DETIC_PHOTOS.index(name)],) for name in names]
            check_stored(together(model, rows, slot), names)

    def test_results_do_not_belong_to_the_slot(self, nano: Detic, photos: list[Image]) -> None:
        model = detector(detic_in_torch(nano))
        slot = model.slot(model.bucket(photos[0]))
        first = together(model, [(photos[0],)], slot)[0]
        kept = first.boxes.copy(), first.scores.copy()
        for tensor in slot.results.values():
            tensor.numpy()[...] = 7
        np.testing.assert_array_equal(first.boxes, kept[0])
        np.testing.assert_array_equal(first.scores, kept[1])

    def test_nothing_found(self, nano: Detic, photos: list[Image]) -> None:
        model = detector(detic_in_torch(nano))
        slot = model.slot(model.bucket(photos[0]))
        together(model, [(photos[0],)], slot)
        slot.results["scores"].numpy()[...] = np.nan
        assert model.read(slot, 0).boxes.shape == (0, 4)
        slot.results["scores"].numpy()[...] = 0.1
        assert model.read(slot, 0).labels == ()

    @pytest.mark.parametrize("one_class", [True, False])
    @pytest.mark.parametrize("threshold", [0.02, 0.5, 0.9, 1.0])
    def test_pairs_are_those_of_the_definition(self, threshold: float, one_class: bool) -> None:
        """Equal scores, and numbers that are none, in boxes, classes and the background's column."""
        generator = np.random.default_rng(0)
        corners = generator.random((60, 2), np.float32) * 100
        boxes = np.concatenate([corners, corners + 5 + 50 * generator.random((60, 2), np.float32)], 1)
        scores = np.round(generator.random((60, 31), np.float32) ** 4 * 20) / np.float32(20)
        values = (np.nan, np.inf, -np.inf)
        for n, value in enumerate(values):
            boxes[n, n], scores[3 + n, 4], scores[6 + n, -1] = value, value, value
        selection = Selection(threshold, one_class)
        rows, classes = pairs(boxes, scores, selection)
        assert rows.dtype == classes.dtype == np.int64
        assert len(rows) > 20 or threshold >= 0.9
        wanted = []
        for n in range(len(boxes)):
            if np.isfinite(boxes[n]).all() and np.isfinite(scores[n]).all():
                least = scores[n, :-1].max() if one_class else 0
                wanted += [(n, c) for c in range(30) if scores[n, c] > threshold and scores[n, c] >= least]
        assert list(zip(rows.tolist(), classes.tolist(), strict=True)) == wanted

    def test_buckets(self) -> None:
        """One image has its own canvas. Of several, the longer edge grows in larger steps, the shorter does not."""

        def never(canvas: Size, rows: int) -> Session:
            raise AssertionError

        sizes = {(800, 1067): (800, 1088), (800, 1200): (800, 1216), (1333, 750): (1344, 768), (800, 800): (800, 832)}
        for size, canvas in sizes.items():
            assert AnyCanvas(never, batch=4).bucket(size) == canvas
        assert AnyCanvas(never).bucket((801, 1100)) == (832, 1120)

    def test_the_gpus_suppression(self) -> None:
        """The native op on the CPU, through the same entry point; `nms` is held to the oracle elsewhere."""
        pytest.importorskip("fgfast._native")
        generator = torch.Generator().manual_seed(0)
        for count, limit in ((700, 256), (20, 256), (300, 3), (1, 1)):
            low = torch.rand(count, 2, generator=generator) * 100
            boxes = torch.cat([low, low + 5 + 40 * torch.rand(count, 2, generator=generator)], 1)
            scores = (torch.rand(count, generator=generator) * 20).round() / 20  # many are equal
            kept, wanted = suppress_on_gpu(boxes, scores, 0.3, limit), nms(boxes, scores, 0.3, limit)
            assert len(kept) == min(limit, count)
            assert kept[: len(wanted)].tolist() == wanted.tolist()
            assert (kept[len(wanted) :] == count).all()


class TestMemory:
    """What happens when a batch is too large; the device that is short of memory is simulated."""

    @pytest.fixture
    def made(self) -> list[int]:
        return []

    def model(self, nano: Detic, made: list[int], largest: int) -> DeticDetector:
        class Small:
            """A session that fails for more images than `largest`."""

            def __init__(self, batch: int) -> None:
                made.append(batch)
                self.inner = eager(nano, batch)
                self.contract, self.device, self.backend = self.inner.contract, self.inner.device, "torch"

            def run(self, inputs: Any, stream: Any = None) -> dict[str, Any]:
                if len(inputs["pixels"]) > largest:
                    raise torch.OutOfMemoryError("CUDA out of memory.")
                return self.inner.run(inputs, stream)

            def close(self) -> None:
                made.append(-len(made))

        return detector(fixed(Small, 4))  # type: ignore[arg-type]

    def test_fixed_shapes_are_halved(self, nano: Detic, photos: list[Image], made: list[int]) -> None:
        model = self.model(nano, made, 2)
        bucket = model.bucket(photos[0])
        old = model.slot(bucket)
        for n, image in enumerate(photos):
            model.fill(old, n, image)
        with pytest.raises(DeviceMemoryError, match=r"cpu does not have enough memory .*: CUDA out of memory"):
            model.launch(old, 3)
        model.shrink()
        assert made == [4, -1], "the large one is closed, and smaller ones are made when they are needed"
        assert model.rows(bucket) == model.batch == 2
        model.launch(old, 2)  # what was filled is still there
        model.wait(old)
        check_stored([model.read(old, row) for row in range(2)], DETIC_PHOTOS[:2])
        check_stored(together(model, [(photos[2],)]), DETIC_PHOTOS[2:])
        assert made == [4, -1, 2]

    def test_one_image_that_does_not_fit(self, nano: Detic, photos: list[Image], made: list[int]) -> None:
        model = self.model(nano, made, 0)
        slot = model.slot(model.bucket(photos[0]))
        for _ in range(4):
            with pytest.raises(DeviceMemoryError, match="CUDA out of memory"):
                model.launch(slot, 1)
            model.shrink()
        assert model.batch == 1

    def test_a_device_that_failed(self, nano: Detic, photos: list[Image], monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*_: Any) -> Any:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

        model = detector(detic_in_torch(nano))
        slot = model.slot(model.bucket(photos[0]))
        monkeypatch.setattr(TorchSession, "run", broken)
        with pytest.raises(DeviceFailedError, match="illegal memory access"):
            model.launch(slot, 1)
