"""Models in slots: one picture alone is what it always was, to the bit; several together agree with it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision_shim
from parity import detic_golden
from parity.detic_golden import Case, draw, settings, state
from parity.golden import PORTABLE, Golden
from parity.test_detic import check_sets

from fgfast import graphs
from fgfast.backends.session import Session
from fgfast.backends.torch import TorchSession
from fgfast.errors import DeviceFailedError, DeviceMemoryError, UsageError
from fgfast.graphs import Manifest
from fgfast.models import sessions
from fgfast.models.batches import default_batch
from fgfast.models.canvases import AnyCanvas, Canvases, Fixed, FixedCanvases, Size
from fgfast.models.detic import checkpoint
from fgfast.models.detic.detector import DeticDetector, pairs
from fgfast.models.detic.graph import DetectorGraph
from fgfast.models.detic.model import Detic
from fgfast.models.detic.selection import Selection, select, to_stored
from fgfast.models.detic.split import SplitDetic
from fgfast.models.detic.suppression import nms
from fgfast.models.detic.suppression_on_gpu import suppress
from fgfast.models.graph_files import Exported
from fgfast.models.pictures import resized
from fgfast.models.sam.graph import ImageEncoderGraph
from fgfast.models.sam.model import Sam
from fgfast.models.sam.segmenter import LowRes, SamSegmenter, finish
from fgfast.models.sessions import detic_in_torch, sam_in_torch
from fgfast.records import Detections, Image
from fgfast.tolerances import SAM_FLIPPED, SAM_FP32

torchvision_shim.declare()

GOLDEN = Golden(PORTABLE, "sam_tiny256")
SAM_PHOTOS = ("dog", "groceries_tall", "truck_large")
DETIC_PHOTOS = ("dog", "groceries_tall", "truck_wide")
NAMES = ("a", "b", "c")
# It holds every photo after resizing, so that all share a bucket.
SQUARE = 640


def alone(model: Any, image: Image, *more: Any) -> Any:
    """A picture through a slot of its own."""
    return together(model, [(image, *more)])[0]


def together(model: Any, rows: list[tuple[Any, ...]], slot: Any = None) -> list[Any]:
    """Pictures of one bucket through one slot, filled by a thread each."""
    (bucket,) = {model.bucket(image) for image, *_ in rows}
    slot = slot or model.slot(bucket)
    threads = [threading.Thread(target=model.fill, args=(slot, n, *row)) for n, row in enumerate(rows)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    model.launch(slot, len(rows))
    model.wait(slot)
    return [model.read(slot, n) for n in range(len(rows))]


def same_bits(ours: Detections, theirs: Detections) -> None:
    assert ours.labels == theirs.labels
    np.testing.assert_array_equal(ours.boxes, theirs.boxes)
    np.testing.assert_array_equal(ours.scores, theirs.scores)


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
    def test_one_picture_is_what_the_call_gives(self, nano: Detic, photos: list[Image]) -> None:
        model = detector(detic_in_torch(nano))
        assert model.device == "cpu" and model.batch == 1
        for image in photos:
            assert model.rows(model.bucket(image)) == 1
            same_bits(alone(model, image), model([image])[0].detections)

    def test_three_pictures(self, nano: Detic, photos: list[Image]) -> None:
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
        check_stored([found.detections for found in model(photos)])

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
    def test_what_counts_is_what_select_finds(self, threshold: float, one_class: bool) -> None:
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
        # Nothing is suppressed with an overlap above 1, and nothing cut off.
        every = Selection(threshold, one_class, 1.1, 10**6)
        wanted = select(torch.from_numpy(boxes), torch.from_numpy(scores), (120, 90), every)
        theirs = set(zip(wanted.proposal_index.tolist(), wanted.classes.tolist(), strict=True))
        assert set(zip(rows.tolist(), classes.tolist(), strict=True)) == theirs
        assert len(theirs) == len(rows)

    @pytest.mark.parametrize("one_class", [True, False])
    def test_detections_are_those_that_select_finds(self, nano: Detic, photos: list[Image], one_class: bool) -> None:
        selection = Selection(0.02, one_class)
        words = draw(PORTABLE, "text_embeddings.8", (3, 512))
        model = DeticDetector(detic_in_torch(nano), case().config, NAMES, words, selection)
        slot = model.slot(model.bucket(photos[0]))
        together(model, [(photos[0],)], slot)
        chosen = select(slot.results["boxes"][0], slot.results["scores"][0], slot.size(0), selection)
        wanted = to_stored(chosen, slot.size(0), slot.stored[0])
        found = model([photos[0]])[0]
        assert len(wanted.boxes) > 20
        np.testing.assert_array_equal(found.detections.boxes, wanted.boxes)
        np.testing.assert_array_equal(found.detections.scores, wanted.scores)
        np.testing.assert_array_equal(found.classes, wanted.classes)
        np.testing.assert_array_equal(found.proposal_index, wanted.proposal_index)

    def test_no_pictures(self, nano: Detic) -> None:
        assert detector(detic_in_torch(nano))([]) == []

    def test_buckets(self) -> None:
        """One picture has its own canvas. Of several, the longer edge grows in larger steps, the shorter does not."""

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
            kept, wanted = suppress(boxes, scores, 0.3, limit), nms(boxes, scores, 0.3, limit)
            assert len(kept) == min(limit, count)
            assert kept[: len(wanted)].tolist() == wanted.tolist()
            assert (kept[len(wanted) :] == count).all()


class TestMemory:
    """What happens when a batch is too large; the device that is short of memory is made up."""

    @pytest.fixture
    def made(self) -> list[int]:
        return []

    def model(self, nano: Detic, made: list[int], largest: int) -> DeticDetector:
        class Small:
            """A session that fails for more pictures than `largest`."""

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
        with pytest.raises(DeviceMemoryError, match="cpu has not enough memory for the batch: CUDA out of memory"):
            model.launch(old, 3)
        assert made == [4, -1], "the large one is closed, and smaller ones are made when they are needed"
        assert model.rows(bucket) == model.batch == 2
        with pytest.raises(DeviceMemoryError, match=r"cpu has not enough memory for 3 pictures at once.*take 2"):
            model.launch(old, 3)
        assert model.batch == 2, "what was known to be too large says nothing new"
        model.launch(old, 2)  # what was filled is still there
        model.wait(old)
        check_stored([model.read(old, row) for row in range(2)], DETIC_PHOTOS[:2])
        check_stored(together(model, [(photos[2],)]), DETIC_PHOTOS[2:])
        assert made == [4, -1, 2]

    def test_one_picture_that_does_not_fit(self, nano: Detic, photos: list[Image], made: list[int]) -> None:
        model = self.model(nano, made, 0)
        slot = model.slot(model.bucket(photos[0]))
        for _ in range(4):
            with pytest.raises(DeviceMemoryError, match="CUDA out of memory"):
                model.launch(slot, 1)
        assert model.batch == 1

    def test_a_device_that_failed(self, nano: Detic, photos: list[Image], monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*_: Any) -> Any:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

        model = detector(detic_in_torch(nano))
        slot = model.slot(model.bucket(photos[0]))
        monkeypatch.setattr(TorchSession, "run", broken)
        with pytest.raises(DeviceFailedError, match="illegal memory access"):
            model.launch(slot, 1)

    def test_sam(self, monkeypatch: pytest.MonkeyPatch) -> None:
        sam = Sam.build("tiny256", GOLDEN.weights())
        contract = graphs.sam_image_encoder(256, 4)
        whole = sam_in_torch(sam)

        def encoder(batch: int) -> Session:
            session = TorchSession(ImageEncoderGraph(sam), graphs.sam_image_encoder(256, batch))
            if batch > 1:
                monkeypatch.setattr(session, "run", lambda *_: torch.zeros(10**15))
            return session

        model = SamSegmenter(encoder(4), whole.decoder, 4, encoder)
        assert model.encoder.contract == contract
        slot = model.slot(model.bucket(picture(0)))
        for n in range(3):
            model.fill(slot, n, picture(n), box(n))
        for left in (2, 1):
            with pytest.raises(DeviceMemoryError, match="can't allocate memory"):
                model.launch(slot, 1)
            assert model.rows(256) == left
        model.launch(slot, 1)
        model.wait(slot)
        np.testing.assert_array_equal(model.read(slot, 0).logits, alone(whole, picture(0), box(0)).logits)


def picture(n: int) -> Image:
    return Image(GOLDEN.photo(SAM_PHOTOS[n]))


def box(n: int) -> Any:
    return GOLDEN.arrays[f"{SAM_PHOTOS[n]}/boxes"][0]


@pytest.fixture(scope="module")
def sam() -> Sam:
    return Sam.build("tiny256", GOLDEN.weights())


class TestSam:
    @pytest.mark.parametrize("n", range(3))
    def test_one_picture_is_what_segment_gives(self, sam: Sam, n: int) -> None:
        model = sam_in_torch(sam)
        assert (model.device, model.batch, model.rows(model.bucket(picture(n)))) == ("cpu", 1, 1)
        height, width = picture(n).pixels.shape[:2]
        found = alone(model, picture(n), box(n))
        made = finish(found, height, width)
        (wanted,) = model.segment([picture(n).pixels], [box(n)[None]])
        np.testing.assert_array_equal(made.bits, wanted.bits[0, 0])
        assert made.quality == wanted.quality[0, 0] and made.stability == wanted.stability[0, 0]
        assert made.bits.shape == (height, width) and made.bits.any()

    def test_three_pictures(self, sam: Sam) -> None:
        model = sam_in_torch(sam, batch=3)
        self.check(model, together(model, [(picture(n), box(n)) for n in range(3)]))

    def test_fixed_shapes_are_filled_up(self, sam: Sam) -> None:
        encoder = TorchSession(ImageEncoderGraph(sam), graphs.sam_image_encoder(256, 3))
        model = SamSegmenter(encoder, sam_in_torch(sam).decoder)
        slot = model.slot(model.bucket(picture(0)))
        assert model.rows(256) == slot.capacity == 3
        for count in (3, 2, 1):
            self.check(model, together(model, [(picture(n), box(n)) for n in range(count)], slot))

    def check(self, model: SamSegmenter, found: list[LowRes]) -> None:
        """Against the same alone, and against the reference's numbers."""
        for n, ours in enumerate(found):
            height, width = picture(n).pixels.shape[:2]
            made = finish(ours, height, width)
            stored = GOLDEN.arrays[f"{SAM_PHOTOS[n]}/batch/mask_bits"]
            count = len(GOLDEN.arrays[f"{SAM_PHOTOS[n]}/boxes"])
            theirs = np.unpackbits(stored, count=count * height * width).reshape(count, height, width)[0].astype(bool)
            assert (made.bits != theirs).mean() <= SAM_FLIPPED
            quality = GOLDEN.arrays[f"{SAM_PHOTOS[n]}/batch/iou"].reshape(-1)[0]
            SAM_FP32["iou"].check(np.array([made.quality - quality]), SAM_PHOTOS[n])

    def test_results_do_not_belong_to_the_slot(self, sam: Sam) -> None:
        model = sam_in_torch(sam)
        slot = model.slot(model.bucket(picture(0)))
        found = together(model, [(picture(0), box(0))], slot)[0]
        kept = found.logits.copy(), found.quality.copy()
        for tensor in slot.results.values():
            tensor.numpy()[...] = 7
        np.testing.assert_array_equal(found.logits, kept[0])
        np.testing.assert_array_equal(found.quality, kept[1])

    def test_a_slot_is_used_again(self, sam: Sam) -> None:
        """A wide picture, then a tall one: nothing of the first is left."""
        model = sam_in_torch(sam)
        slot = model.slot(model.bucket(picture(0)))
        for n in (2, 1, 0, 2):
            found = together(model, [(picture(n), box(n))], slot)[0]
            np.testing.assert_array_equal(found.logits, alone(model, picture(n), box(n)).logits)

    def test_of_three_masks_the_best(self, sam: Sam) -> None:
        model = sam_in_torch(sam, multimask=True)
        height, width = picture(0).pixels.shape[:2]
        found = alone(model, picture(0), box(0))
        assert found.logits.shape == (3, 64, 64)
        made = finish(found, height, width)
        (wanted,) = model.segment([picture(0).pixels], [box(0)[None]])
        best = wanted.quality[0].argmax()
        assert made.quality == wanted.quality[0].max()
        np.testing.assert_array_equal(made.bits, wanted.bits[0, best])


class TestGroundingDino:
    PHRASES = ("Bird", "red car", "dog")

    def model(self, batch: int) -> Any:
        pytest.importorskip("transformers")
        from fgfast.models.grounding_dino import build

        return build("grounding_dino_tiny", self.PHRASES, "random:0", box_threshold=0.3, batch=batch)

    def image(self, height: int, width: int, seed: int) -> Image:
        blocks = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
        return Image(np.ascontiguousarray(blocks.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]))

    def test_one_picture_is_what_the_call_gives(self) -> None:
        model = self.model(1)
        for seed, size in enumerate([(90, 120), (200, 120), (12, 100)]):
            image = self.image(*size, seed)
            found = alone(model, image)
            assert len(found.scores) > 3
            same_bits(found, model([image])[0])

    def test_three_pictures(self) -> None:
        """Of one size: others do not share a bucket. As a larger batch takes other kernels, not to the bit."""
        model = self.model(3)
        images = [self.image(90, 120, seed) for seed in range(3)]
        assert model.bucket(images[0]) != model.bucket(self.image(91, 120, 0))
        for image, ours in zip(images, together(model, [(image,) for image in images]), strict=True):
            theirs = alone(model, image)
            assert ours.labels == theirs.labels and len(ours.labels) > 3
            np.testing.assert_allclose(ours.scores, theirs.scores, rtol=0, atol=1e-4)
            np.testing.assert_allclose(ours.boxes, theirs.boxes, rtol=0, atol=0.02)

    def test_resizing_is_the_image_processors(self) -> None:
        """Sizes and bytes, of pictures of all shapes, at the small model's edges and at the published ones'."""
        pytest.importorskip("transformers")
        from fgfast.models.grounding_dino import small
        from fgfast.models.grounding_dino.transform import edges_of

        generator = np.random.default_rng(0)
        sizes = [(800, 1000), (500, 375), (375, 500), (333, 500), (9, 100), (640, 640), (1333, 800), (128, 90)]
        sizes += [(int(h), int(w)) for h, w in generator.integers(20, 260, (40, 2))]
        for size in ({"shortest_edge": 128, "longest_edge": 224}, {"shortest_edge": 800, "longest_edge": 1333}):
            processor = small.image_processor()
            processor.size = size
            edges = edges_of(processor)
            for height, width in sizes if size["shortest_edge"] == 128 else sizes[:6]:
                picture = generator.integers(0, 256, (height, width, 3), np.uint8)
                plain = {"do_pad": False, "do_rescale": False, "do_normalize": False, "return_tensors": "np"}
                wanted = processor(images=[picture], input_data_format="channels_last", **plain)["pixel_values"][0]
                wanted = wanted.transpose(1, 2, 0)
                assert edges.resized_size(height, width) == wanted.shape[:2]
                np.testing.assert_array_equal(resized(picture, edges.resized_size(height, width)), wanted)

    @pytest.mark.parametrize(
        ("attribute", "value", "message"),
        [("resample", 3, "Pillow's filter 3, not with 2"), ("size", {"height": 800, "width": 800}, "shortest_edge")],
    )
    def test_another_resizing_is_refused(self, attribute: str, value: Any, message: str) -> None:
        pytest.importorskip("transformers")
        from fgfast.models.grounding_dino import small
        from fgfast.models.grounding_dino.transform import edges_of

        processor = small.image_processor()
        setattr(processor, attribute, value)
        with pytest.raises(UsageError, match=message):
            edges_of(processor)


class TestExported:
    def graph(self, batch: int | str) -> Exported:
        contract = graphs.sam_image_encoder(256, batch)
        manifest = Manifest(contract, "sam_tiny256", "random:1", "fp32", 20, {}, {})
        return Exported(Path(f"{batch}.onnx"), manifest)

    @pytest.mark.parametrize(
        ("there", "asked", "taken"),
        [
            ((1,), 4, 1),
            ((1, 2, 4, 8), 4, 4),
            ((1, 2, 8), 4, 2),
            ((8, 3), 2, 3),
            ((1, "batch"), 4, "batch"),
            ((1, "batch"), 1, 1),
            ((4, "batch"), 4, 4),
            ((4, "batch"), 1, "batch"),
        ],
    )
    def test_which_batch(self, there: tuple[int | str, ...], asked: int, taken: int | str) -> None:
        found = sessions.of_batch([self.graph(batch) for batch in there], asked)
        assert found.manifest.contract.inputs[0].shape[0] == taken

    def test_a_batch_that_is_not_full(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """An export for three pictures, the only one there is, whatever is asked for. The export takes seconds."""
        for package in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(package)
        from fgfast.export import make

        monkeypatch.setenv("FGFAST_CACHE", str(tmp_path))
        make.export("sam_tiny256", weights="random:1", batch=3, out=tmp_path / "graphs", say=lambda _: None)
        for asked in (None, 4):
            model = sessions.sam("sam_tiny256", "random:1", "fp32", "cpu", "onnxruntime", asked)
            assert model.rows(model.bucket(picture(0))) == model.batch == 3
        theirs = sessions.sam("sam_tiny256", "random:1", "fp32", "cpu", "torch")
        for n, ours in enumerate(together(model, [(picture(n), box(n)) for n in range(2)])):
            wanted = alone(theirs, picture(n), box(n))
            SAM_FP32["low_res"].check((ours.logits - wanted.logits).reshape(-1).astype(np.float64), SAM_PHOTOS[n])


def test_batches_by_device() -> None:
    assert (default_batch("cpu"), default_batch("cuda:1"), default_batch(torch.device("cuda"))) == (1, 4, 4)
