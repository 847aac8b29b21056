"""`fgfast bench decoders`: masks under two decoders, and the verdict. GPU decoders cannot be here: `Fake` is one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from fgfast.bench import decoders, masks
from fgfast.bench.masks import MaskParity, compare_masks, compared_masks, prompted, segmenter_of
from fgfast.bench.result import rows_of
from fgfast.errors import SampleError, UnknownNameError, UsageError
from fgfast.io.decode import decode
from fgfast.io.decoders import CpuDecoder
from fgfast.models.files import measured
from fgfast.ops.overlap import iou
from fgfast.pipeline.decoder_choice import verdict_key
from fgfast.records import Bool, Float32, Image, UInt8
from fgfast.tolerances import DECODER_MASK_IOU


class Fake:
    """Stands in for a decoder of a GPU: the pixels of the CPU decoder, moved to the right."""

    name, batch = "dali", 4

    def __init__(self, shift: int) -> None:
        self.shift = shift

    def __call__(self, files: Sequence[bytes], names: Sequence[str], turn_exif: bool) -> list[Image | SampleError]:
        return [
            Image(np.roll(decode(data, name, turn_exif).pixels, self.shift, 1))
            for data, name in zip(files, names, strict=True)
        ]

    def close(self) -> None: ...


def bright(pixels: UInt8, box: Float32) -> Bool:
    """Segments what is bright."""
    found: Bool = pixels.mean(2) > 100
    return found


@pytest.fixture
def squares(tmp_path: Path) -> Path:
    """A folder of JPEGs with a bright square each, 40 pixels wide."""
    for n in range(3):
        pixels = np.zeros((90, 120, 3), np.uint8)
        pixels[20:60, 30 + n : 70 + n] = 220
        Pillow.fromarray(pixels).save(tmp_path / f"{n}.jpg", quality=95)
    return tmp_path


def mask(*columns: int) -> Bool:
    bits = np.zeros((1, 1000), np.bool_)
    bits[0, slice(*columns)] = True
    return bits


def test_iou() -> None:
    assert iou(mask(0, 10), mask(5, 15)) == pytest.approx(1 / 3)
    assert iou(mask(0, 10), mask(20, 30)) == 0
    assert iou(mask(0, 0), mask(0, 0)) == 1
    assert iou(mask(0, 0), mask(0, 0), both_empty=0.0) == 0
    with pytest.raises(ValueError, match="must have one size"):
        iou(mask(0, 1), np.zeros((2, 2), np.bool_))


@pytest.mark.parametrize(("kept", "right"), [(1000, True), (995, True), (994, False)])
def test_the_worst_mask_decides(kept: int, right: bool) -> None:
    found = compare_masks("dali", [mask(0, 1000), mask(0, kept)], [mask(0, 1000), mask(0, 1000)])
    assert found == MaskParity("dali", 2, kept / 1000, pytest.approx((1 + kept / 1000) / 2))
    assert found.right is right
    assert found.right == (found.worst_iou >= DECODER_MASK_IOU)


def test_masks_come_in_pairs() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        compare_masks("dali", [], [])
    with pytest.raises(ValueError, match="shorter"):
        compare_masks("dali", [mask(0, 1), mask(0, 1)], [mask(0, 1)])


@pytest.mark.parametrize(("shift", "worst"), [(0, 1.0), (1, 39 / 41)])
def test_pixels_that_are_moved_move_the_masks(shift: int, worst: float, squares: Path) -> None:
    ours = {"cpu": [CpuDecoder()], "dali": [Fake(shift)]}
    (found,) = compared_masks(ours, prompted(squares), bright)
    assert (found.decoder, found.images, found.right) == ("dali", 3, shift == 0)
    assert found.worst_iou == pytest.approx(worst, abs=0.01)


def test_without_another_decoder_nothing_is_segmented(squares: Path) -> None:
    def fails(pixels: UInt8, box: Float32) -> Bool:
        raise AssertionError("segmented")

    assert compared_masks({"cpu": [CpuDecoder()]}, prompted(squares), fails) == []


def test_files_of_a_folder_are_spread_and_prompted_by_their_middle(
    squares: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masks, "_MASKED", 2)
    found = prompted(squares)
    assert [file.data for file in found] == [(squares / f"{n}.jpg").read_bytes() for n in (0, 1)]
    np.testing.assert_allclose(found[0].box, (12, 9, 108, 81))


def test_sample_photographs_are_prompted_by_their_boxes() -> None:
    pytest.importorskip("skimage")
    pytest.importorskip("sklearn")
    found = prompted(None)
    assert len(found) == masks._MASKED
    for data, (x0, y0, x1, y1) in found:
        height, width, _ = decode(data, "", turn_exif=False).pixels.shape
        assert 0 <= x0 < x1 <= width
        assert 0 <= y0 < y1 <= height
        assert max(width, height) == 500


def test_the_default_segmenter_finds_a_bright_square(squares: Path) -> None:
    name, segment = segmenter_of("grabcut", "cached", "cpu")
    assert name == "grabcut"
    data, _ = prompted(squares)[0]
    bits = segment(decode(data, "", turn_exif=False).pixels, np.array((24, 14, 76, 66), np.float32))
    wanted = np.zeros((90, 120), np.bool_)
    wanted[20:60, 30:70] = True
    assert iou(bits, wanted) > 0.95


def test_the_verdict_is_part_of_the_result_and_remembered(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FGFAST_CACHE", str(tmp_path / "cache"))

    def usable(stack: ExitStack, device: str) -> tuple[dict[str, list[Fake | CpuDecoder]], list[str]]:
        return {"cpu": [CpuDecoder()], "dali": [Fake(1)]}, ["nvjpeg cannot be used: so"]

    monkeypatch.setattr(decoders, "usable", usable)
    monkeypatch.setattr(decoders, "available_cores", lambda: 1)
    monkeypatch.setattr(decoders, "segmenter_of", lambda *given: ("grabcut", bright))
    result = decoders.measure(rounds=1, folder=squares, device="cuda:0", segmenter="auto")
    assert (result["verdicts"], result["device"], result["segmenter"]) == ({"dali": False}, "cuda:0", "grabcut")
    assert result["verdict"][0].startswith("dali is wrong on cuda:0: on 3 images")
    # Under the name of the segmenter that "auto" stands for, which is the name that a run looks up.
    assert measured.recall(verdict_key("dali", "cuda:0", "grabcut")) is False
    assert "nvjpeg cannot be used: so" in result["notes"]
    rows = {row.key: row.value for row in rows_of(result)}
    assert rows["masks by grabcut: dali: worst mask IoU"] == pytest.approx(39 / 41, abs=0.01)
    assert rows[f"{squares}: dali, 1 thread"] > 0
    assert rows[f"{squares}: cpu, 1 thread: largest difference"] == 0
    assert rows[f"{squares}: dali, 1 thread: largest difference"] > 100


def test_a_decoder_that_cannot_be_made_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "available", lambda device: ("nvjpeg", "cpu"))
    with ExitStack() as stack:
        found, notes = decoders.usable(stack, "cpu")
    assert list(found) == ["cpu"]
    assert "nvjpeg cannot be used: the decoder nvjpeg needs a CUDA device" in notes[0]


def test_what_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no file \*\.jpg"):
        decoders.measure(rounds=1, folder=tmp_path)
    with pytest.raises(UnknownNameError, match="Did you mean 'grabcut'"):
        segmenter_of("grabcutt", "cached", "cpu")
