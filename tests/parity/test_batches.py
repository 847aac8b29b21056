"""Models in slots: one image alone is what it always was, to the bit; several together agree with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parity.golden import PORTABLE, Golden
from parity.in_slots import alone, same_bits, together

from fgfast import graphs, ops
from fgfast.backends.manifest import Manifest
from fgfast.backends.session import Session
from fgfast.backends.torch import TorchSession
from fgfast.errors import DeviceMemoryError, UsageError
from fgfast.methods import ModelSpec
from fgfast.models.files.graph_files import Exported
from fgfast.models.sam.graph import ImageEncoderGraph
from fgfast.models.sam.model import Sam
from fgfast.models.sam.segmenter import LowRes, SamSegmenter, finish
from fgfast.models.sam.sessions import sam_in_torch, segmenter
from fgfast.models.sam.transform import resized_size
from fgfast.models.serving import exported as sessions
from fgfast.models.serving.batches import default_batch, resized
from fgfast.records import Image
from fgfast.runner import run_batch
from fgfast.studies import torchvision_shim
from fgfast.tolerances import SAM_FLIPPED, SAM_FP32

torchvision_shim.declare()

GOLDEN = Golden(PORTABLE, "sam_tiny256")
SAM_PHOTOS = ("dog", "groceries_tall", "truck_large")


def make_image(n: int) -> Image:
    return Image(GOLDEN.photo(SAM_PHOTOS[n]))


def box(n: int) -> Any:
    return GOLDEN.arrays[f"{SAM_PHOTOS[n]}/boxes"][0]


@pytest.fixture(scope="module")
def sam() -> Sam:
    return Sam.build("tiny256", GOLDEN.weights())


class TestSam:
    def test_an_encoder_that_does_not_fit_is_halved(self, sam: Sam, monkeypatch: pytest.MonkeyPatch) -> None:
        contract = graphs.sam_image_encoder(256, 4)
        whole = sam_in_torch(sam)

        def encoder(batch: int) -> Session:
            session = TorchSession(ImageEncoderGraph(sam), graphs.sam_image_encoder(256, batch))
            if batch > 1:
                monkeypatch.setattr(session, "run", lambda *_: torch.zeros(10**15))
            return session

        model = SamSegmenter(encoder(4), whole.decoder, 4, encoder)
        assert model.encoder.contract == contract
        slot = model.slot(256)
        for n in range(3):
            model.fill(slot, n, make_image(n), box(n))
        for left in (2, 1):
            with pytest.raises(DeviceMemoryError, match="can't allocate memory"):
                model.launch(slot, 1)
            model.shrink()
            assert model.rows(256) == left
        model.launch(slot, 1)
        model.wait(slot)
        np.testing.assert_array_equal(model.read(slot, 0).logits, alone(whole, make_image(0), box(0)).logits)

    @pytest.mark.parametrize("n", range(3))
    def test_one_image_is_what_a_batch_of_one_gives(self, sam: Sam, n: int) -> None:
        model = sam_in_torch(sam)
        assert (model.device, model.batch, model.rows(model.bucket(make_image(n), box(n)))) == ("cpu", 1, 1)
        height, width = make_image(n).pixels.shape[:2]
        made = finish(alone(model, make_image(n), box(n)), height, width)
        (low_res,) = run_batch(model, [(make_image(n), box(n))])
        wanted = model.finish(low_res, height, width, 2)
        np.testing.assert_array_equal(made.bits, wanted.bits)
        assert made.quality == wanted.quality
        assert made.bits.shape == (height, width) and made.bits.any()

    def test_three_images(self, sam: Sam) -> None:
        model = sam_in_torch(sam, batch=3)
        self.check(model, together(model, [(make_image(n), box(n)) for n in range(3)]))

    def test_fixed_shapes_are_filled_up(self, sam: Sam) -> None:
        encoder = TorchSession(ImageEncoderGraph(sam), graphs.sam_image_encoder(256, 3))
        model = SamSegmenter(encoder, sam_in_torch(sam).decoder)
        slot = model.slot(256)
        assert model.rows(256) == slot.capacity == 3
        for count in (3, 2, 1):
            self.check(model, together(model, [(make_image(n), box(n)) for n in range(count)], slot))

    def check(self, model: SamSegmenter, found: list[LowRes]) -> None:
        """Against the same alone, and against the reference's numbers."""
        for n, ours in enumerate(found):
            height, width = make_image(n).pixels.shape[:2]
            made = finish(ours, height, width)
            stored = GOLDEN.arrays[f"{SAM_PHOTOS[n]}/batch/mask_bits"]
            count = len(GOLDEN.arrays[f"{SAM_PHOTOS[n]}/boxes"])
            theirs = np.unpackbits(stored, count=count * height * width).reshape(count, height, width)[0].astype(bool)
            assert (made.bits != theirs).mean() <= SAM_FLIPPED
            quality = GOLDEN.arrays[f"{SAM_PHOTOS[n]}/batch/iou"].reshape(-1)[0]
            SAM_FP32["iou"].check(np.array([made.quality - quality]), SAM_PHOTOS[n])

    def test_results_do_not_belong_to_the_slot(self, sam: Sam) -> None:
        model = sam_in_torch(sam)
        slot = model.slot(256)
        found = together(model, [(make_image(0), box(0))], slot)[0]
        kept = found.logits.copy(), found.quality.copy()
        for tensor in slot.results.values():
            tensor.numpy()[...] = 7
        np.testing.assert_array_equal(found.logits, kept[0])
        np.testing.assert_array_equal(found.quality, kept[1])

    def test_a_slot_is_used_again(self, sam: Sam) -> None:
        """A wide image, then a tall one: nothing of the first is left."""
        model = sam_in_torch(sam)
        slot = model.slot(256)
        for n in (2, 1, 0, 2):
            found = together(model, [(make_image(n), box(n))], slot)[0]
            np.testing.assert_array_equal(found.logits, alone(model, make_image(n), box(n)).logits)

    def test_of_three_masks_the_best(self, sam: Sam) -> None:
        model = sam_in_torch(sam, multimask=True)
        height, width = make_image(0).pixels.shape[:2]
        found = alone(model, make_image(0), box(0))
        assert found.logits.shape == (3, 64, 64)
        made = finish(found, height, width)
        best = found.quality.argmax()
        masks = ops.mask_post(found.logits[None], (height, width), resized_size(height, width, 256), 256)
        assert made.quality == found.quality.max()
        np.testing.assert_array_equal(made.bits, masks.bits[0, best])


class TestGroundingDino:
    PHRASES = ("Bird", "red car", "dog")

    def model(self, batch: int) -> Any:
        pytest.importorskip("transformers")
        from fgfast.models.grounding_dino.sessions import build

        return build(ModelSpec("grounding_dino_tiny", "random:0", batch=batch), self.PHRASES, box_threshold=0.3)

    def image(self, height: int, width: int, seed: int) -> Image:
        blocks = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
        return Image(np.ascontiguousarray(blocks.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]))

    def test_one_image_is_what_the_call_gives(self) -> None:
        model = self.model(1)
        for seed, size in enumerate([(90, 120), (200, 120), (12, 100)]):
            image = self.image(*size, seed)
            found = alone(model, image)
            assert len(found.scores) > 3
            same_bits(found, run_batch(model, [(image,)])[0])

    def test_three_images(self) -> None:
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
        """Sizes and bytes, of images of all shapes, at the small model's edges and at the published ones'."""
        pytest.importorskip("transformers")
        from fgfast.models.grounding_dino import small
        from fgfast.models.grounding_dino.transform import edges_of, resized_size

        generator = np.random.default_rng(0)
        sizes = [(800, 1000), (500, 375), (375, 500), (333, 500), (9, 100), (640, 640), (1333, 800), (128, 90)]
        sizes += [(int(h), int(w)) for h, w in generator.integers(20, 260, (40, 2))]
        for size in ({"shortest_edge": 128, "longest_edge": 224}, {"shortest_edge": 800, "longest_edge": 1333}):
            processor = small.image_processor()
            processor.size = size
            edges = edges_of(processor)
            for height, width in sizes if size["shortest_edge"] == 128 else sizes[:6]:
                image = generator.integers(0, 256, (height, width, 3), np.uint8)
                plain = {"do_pad": False, "do_rescale": False, "do_normalize": False, "return_tensors": "np"}
                wanted = processor(images=[image], input_data_format="channels_last", **plain)["pixel_values"][0]
                wanted = wanted.transpose(1, 2, 0)
                assert resized_size(height, width, *edges) == wanted.shape[:2]
                np.testing.assert_array_equal(resized(image, resized_size(height, width, *edges)), wanted)

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

    @pytest.mark.full
    def test_a_batch_that_is_not_full(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """An export for three images, the only one there is, whatever is asked for. The export takes seconds."""
        for package in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(package)
        from fgfast.export import make

        monkeypatch.setenv("FGFAST_CACHE", str(tmp_path))
        make.export(ModelSpec("sam_tiny256", "random:1", batch=3), out=tmp_path / "graphs", on_message=lambda _: None)
        for asked in (None, 4):
            model = segmenter(ModelSpec("sam_tiny256", "random:1", backend="onnxruntime", batch=asked))
            assert model.rows(256) == model.batch == 3
        theirs = segmenter(ModelSpec("sam_tiny256", "random:1"))
        for n, ours in enumerate(together(model, [(make_image(n), box(n)) for n in range(2)])):
            wanted = alone(theirs, make_image(n), box(n))
            SAM_FP32["low_res"].check((ours.logits - wanted.logits).reshape(-1).astype(np.float64), SAM_PHOTOS[n])


def test_batches_by_device() -> None:
    assert (default_batch("cpu"), default_batch("cuda:1"), default_batch(torch.device("cuda"))) == (1, 4, 4)
