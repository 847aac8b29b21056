"""Styles: the filters, what they see of the background, and a model's way through."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from layouts import SHARED, cub
from PIL import Image

from fgfast.bench.drawn import drawn
from fgfast.datasets import open_dataset
from fgfast.errors import MissingExtraError, SampleError, UnknownNameError, UsageError, WeightsError
from fgfast.expand import diffusion
from fgfast.expand.kind import Product, Request, Subject
from fgfast.expand.kinds.styles import Options, class_name, plan
from fgfast.ops.styles import STYLES, divided, edges, extended, inner, oil, sketch
from fgfast.records import Bool, Sample, UInt8

NAMES = ("sketch", "pencil", "watercolour", "cartoon", "oil", "edges")


def request_for(root: Path, background: str = "black", seed: int = 0) -> Request:
    """A request about a data set, whose run need not be there: the plan asks for its background alone."""
    dataset = open_dataset(str(root))
    twin: Any = SimpleNamespace(dataset=dataset, settings={"background": background})
    keys = tuple(sample.key for sample in dataset.samples)
    nothing: Any = None  # what the ledger says is not asked
    return Request(twin, "styles", seed, keys, keys, nothing)


def bird(background: tuple[int, int, int] = (120, 160, 90), noise: float = 0) -> tuple[UInt8, Bool]:
    """A drawn bird before a background, with some noise on the whole; its mask is all that it covers at all."""
    subject = drawn(0.5)
    image = subject.on(np.array(background, np.float32)) + noise * np.random.default_rng(0).normal(0, 1, (300, 400, 1))
    return np.clip(image, 0, 255).astype(np.uint8), subject.alpha > 0.999


def subject_of(pixels: UInt8, bits: Bool, label: str = "001.Black_footed_Albatross", seed: int = 0) -> Subject:
    return Subject(Sample("images/a.jpg", Path("a.jpg"), label), pixels, bits, {}, (seed, "styles", "images/a.jpg"))


# --- filters -------------------------------------------------------------------------------------------------------


def test_these_are_the_styles() -> None:
    assert tuple(STYLES) == NAMES


@pytest.mark.parametrize("style", NAMES)
def test_a_filter_gives_the_same_bytes_whatever_the_threads(style: str) -> None:
    pixels, _ = bird(noise=8)
    before, threads = pixels.copy(), cv2.getNumThreads()
    try:
        found = []
        for number in (1, 2, 1):
            cv2.setNumThreads(number)
            found.append(STYLES[style](pixels))
    finally:
        cv2.setNumThreads(threads)
    assert all(np.array_equal(found[0], other) for other in found[1:]) and np.array_equal(pixels, before)
    assert found[0].dtype == np.uint8 and found[0].shape == pixels.shape and found[0].flags.c_contiguous
    assert found[0].std() > 5 and not np.array_equal(found[0], pixels)


@pytest.mark.parametrize("style", NAMES)
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (1, 400), (400, 1), (3, 5), (8, 8)])
def test_a_filter_takes_images_of_any_shape(style: str, size: tuple[int, int]) -> None:
    for pixels in (
        np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8),
        np.zeros((*size, 3), np.uint8),
        np.full((*size, 3), 255, np.uint8),
    ):
        assert STYLES[style](pixels).shape == pixels.shape


def test_the_sketch_is_grey_divided_by_its_blur() -> None:
    values, by = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    wanted = [[255 if b == 0 else min(255, round(255 * a / b)) for a in range(256)] for b in range(256)]
    assert np.abs(divided(values, by).astype(int) - wanted).max() == 0
    line = np.full((50, 50, 3), 200, np.uint8)
    line[25] = 20
    drawn_ = sketch(line)
    assert (drawn_[:10] > 250).all() and (drawn_[25] < 60).all() and np.ptp(drawn_, axis=2).max() == 0


def test_edges_are_where_the_colour_changes() -> None:
    pixels = np.zeros((60, 80, 3), np.uint8)
    pixels[:, 40:] = 220
    found = edges(pixels)
    assert set(np.unique(found)) == {0, 255}
    rows, columns = np.nonzero(found[:, :, 0])
    assert len(set(rows)) >= 56 and set(columns) <= {38, 39, 40, 41}
    assert not edges(np.full((60, 80, 3), 99, np.uint8)).any()


def test_oil_is_the_mean_of_the_most_frequent_brightness() -> None:
    pixels = np.full((40, 40, 3), 50, np.uint8)
    pixels[::5, ::5] = 250  # specks are no majority anywhere
    assert np.abs(oil(pixels)[3:-3, 3:-3].astype(int) - 50).max() <= 1 or (oil(pixels)[3:-3, 3:-3] == 50).mean() > 0.9


def test_extended_is_the_nearest_pixel_of_the_subject() -> None:
    generator = np.random.default_rng(3)
    pixels = generator.integers(0, 256, (24, 31, 3), dtype=np.uint8)
    bits = generator.random((24, 31)) < 0.03
    found, ys, xs = extended(pixels, bits), *np.nonzero(bits)
    assert np.array_equal(found[bits], pixels[bits])
    for y in range(24):
        for x in range(31):
            distances = np.hypot(ys - y, xs - x)
            near = distances <= distances.min() * 1.03 + 1e-6
            assert any((found[y, x] == pixels[b, a]).all() for b, a in zip(ys[near], xs[near], strict=True))
    assert extended(pixels, np.zeros_like(bits)) is pixels
    assert extended(pixels, np.ones_like(bits)) is pixels


def test_the_rim_is_left_out_and_thin_parts_are_not() -> None:
    bits = np.zeros((60, 80), np.bool_)
    bits[10:40, 10:40] = True
    bits[40:58, 20:22] = True  # a leg
    bits[5, 70] = True
    found = inner(bits)
    assert not found[~bits].any() and found[12:38, 12:38].all()
    assert not found[10:12, 10:40].any() and not found[12:38, 10:12].any()
    assert found[44:58, 20:22].all() and found[5, 70]
    for odd in (np.zeros((3, 4), np.bool_), np.ones((3, 4), np.bool_), np.ones((1, 1), np.bool_)):
        assert np.array_equal(inner(odd), odd)  # where the subject leaves the image there is no rim


def test_the_soft_edge_of_a_lens_takes_no_background_along() -> None:
    bird_ = drawn(0.8)
    bits = bird_.alpha >= 0.5
    images = [np.rint(bird_.on(np.float32(colour))).astype(np.uint8) for colour in ((255, 0, 255), (0, 255, 0))]

    def difference(mask: Bool) -> float:
        first, second = (oil(extended(image, mask)).astype(int) for image in images)
        return float(np.abs(first - second)[bits].mean())

    assert difference(inner(bits)) < 0.15 * difference(bits)


# --- the kind ------------------------------------------------------------------------------------------------------


def test_bare_it_makes_every_style_as_a_data_set_of_its_own(tmp_path: Path) -> None:
    planned = plan(request_for(cub(tmp_path)), Options())
    assert planned.sets == tuple(f"{style}/CUB_200_2011" for style in NAMES)
    assert planned.annotated and not planned.transparent and not planned.warnings
    pixels, bits = bird()
    product = pickle.loads(pickle.dumps(planned.step))(subject_of(pixels, bits))
    assert tuple(product.images) == planned.sets
    for image in product.images.values():
        assert image.shape == pixels.shape and not image[~bits].any() and image[bits].any()


@pytest.mark.parametrize("style", NAMES)
def test_the_background_changes_no_pixel_of_the_subject(tmp_path: Path, style: str) -> None:
    planned = plan(request_for(cub(tmp_path)), Options(styles=style))
    pixels, bits = bird()
    repainted = np.where(bits[:, :, None], pixels, np.uint8([255, 0, 255])).astype(np.uint8)
    made = [planned.step(subject_of(p, bits)).images[f"{style}/CUB_200_2011"] for p in (pixels, repainted)]
    assert np.array_equal(made[0], made[1])


def test_the_whole_image_is_restyled_on_request(tmp_path: Path) -> None:
    planned = plan(request_for(cub(tmp_path)), Options(styles="oil", on="image"))
    pixels, bits = bird(noise=8)
    product = planned.step(subject_of(pixels, bits))
    assert np.array_equal(product.images["oil/CUB_200_2011"], oil(pixels))
    empty = planned.step(subject_of(pixels, np.zeros_like(bits)))
    assert not empty.skipped and "oil/CUB_200_2011" in empty.images


def test_the_run_s_background_is_kept(tmp_path: Path) -> None:
    root = cub(tmp_path)
    pixels, bits = bird()
    for background, colour in (("white", (255, 255, 255)), ("124,116,104", (124, 116, 104))):
        planned = plan(request_for(root, background), Options(styles="oil"))
        made = planned.step(subject_of(pixels, bits)).images["oil/CUB_200_2011"]
        assert (made[~bits] == colour).all() and not planned.warnings
    planned = plan(request_for(root, "transparent"), Options(styles="oil"))
    made = planned.step(subject_of(pixels, bits)).images["oil/CUB_200_2011"]
    assert planned.transparent and np.array_equal(made[:, :, 3], np.where(bits, 255, 0))
    for odd in ("blur", "sea.jpg (sha256 0123456789abcdef)"):
        planned = plan(request_for(root, odd), Options(styles="oil"))
        assert odd in planned.warnings[0]
        assert not planned.step(subject_of(pixels, bits)).images["oil/CUB_200_2011"][~bits].any()
        assert not plan(request_for(root, odd), Options(styles="oil", on="image")).warnings


def test_masks_at_the_extremes_end_as_outcomes(tmp_path: Path) -> None:
    planned = plan(request_for(cub(tmp_path)), Options())
    pixels, bits = bird()
    assert "empty" in planned.step(subject_of(pixels, np.zeros_like(bits))).skipped
    whole = planned.step(subject_of(pixels, np.ones_like(bits)))  # has no rim
    assert np.array_equal(whole.images["oil/CUB_200_2011"], oil(pixels))
    one = planned.step(subject_of(np.full((1, 1, 3), 9, np.uint8), np.ones((1, 1), np.bool_)))
    assert all(image.shape == (1, 1, 3) for image in one.images.values())
    border = np.zeros_like(bits)
    border[:, :3] = True
    assert all(not image[~border].any() for image in planned.step(subject_of(pixels, border)).images.values())


def test_styles_are_named_and_unknown_ones_told(tmp_path: Path) -> None:
    request = request_for(cub(tmp_path))
    assert plan(request, Options(styles="oil, sketch")).sets == ("sketch/CUB_200_2011", "oil/CUB_200_2011")
    with pytest.raises(UnknownNameError, match="watercolour"):
        plan(request, Options(styles="watercolor"))
    with pytest.raises(UsageError, match="names none"):
        plan(request, Options(styles=" , "))


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("001.Black_footed_Albatross", "black footed albatross"),
        ("n02085620-Chihuahua", "chihuahua"),
        ("F-16A/B", "f-16a/b"),
        ("", ""),
    ],
)
def test_a_label_is_said_in_words(label: str, words: str) -> None:
    assert class_name(label) == words


# --- a model -------------------------------------------------------------------------------------------------------


class FakePipeline:
    """Stands in for a pipeline of diffusers: it paints the noise of its generator over the image."""

    calls: list[dict[str, Any]]

    def __init__(self) -> None:
        self.calls = []

    def set_progress_bar_config(self, disable: bool) -> None:
        assert disable

    def to(self, device: str) -> FakePipeline:
        assert device.startswith(("cpu", "cuda:"))
        return self

    def __call__(self, **given: Any) -> Any:
        import torch

        self.calls.append(given)
        width, height = given["image"].size
        noise = torch.randint(0, 256, (height // 16, width // 16, 3), generator=given["generator"], dtype=torch.uint8)
        hidden = [True] if "hidden" in given["prompt"] else [False]
        return SimpleNamespace(
            images=[Image.fromarray(noise.numpy()).resize((width, height))], nsfw_content_detected=hidden
        )


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakePipeline]:
    """A fake diffusers, named as such, in place of the package."""
    pytest.importorskip("torch", reason="torch is not installed")
    pipeline = FakePipeline()
    module: Any = ModuleType("diffusers")
    module.AutoPipelineForImage2Image = SimpleNamespace(
        from_pretrained=lambda folder, **options: pipeline if options["use_safetensors"] else None
    )
    monkeypatch.setitem(sys.modules, "diffusers", module)
    monkeypatch.setattr(diffusion, "find_spec", lambda name: name)
    monkeypatch.setattr("fgfast.expand.kinds.styles.versions", lambda: {"torch": "fake", "diffusers": "fake"})
    diffusion._loaded.cache_clear()
    yield pipeline
    diffusion._loaded.cache_clear()


def model(folder: Path, **more: Any) -> Path:
    """A folder that looks like a model of diffusers; its weights are a few letters."""
    (folder / "unet").mkdir(parents=True)
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.36.0",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "safety_checker": [None, None],
        "requires_safety_checker": False,
        **more,
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "unet" / "model.safetensors").write_bytes(b"weights")
    return folder


def test_a_model_redraws_inside_the_outline_of_the_mask(tmp_path: Path, fake: FakePipeline) -> None:
    request = request_for(cub(tmp_path))
    planned = plan(request, Options(model=str(model(tmp_path / "m")), side=128, steps=4))
    assert planned.sets == ("model/CUB_200_2011",) and planned.fingerprint["diffusers"] == "fake"
    pixels, bits = bird()
    product = pickle.loads(pickle.dumps(planned.step))(subject_of(pixels, bits))
    made = product.images["model/CUB_200_2011"]
    assert made.shape == pixels.shape and not made[~bits].any() and made[bits].std() > 20
    (call,) = fake.calls
    assert call["prompt"] == "a watercolour painting of a black footed albatross"
    assert call["image"].size == (128, 128) and (call["strength"], call["num_inference_steps"]) == (0.5, 4)
    assert np.asarray(call["image"])[0, 0].tolist() == [255, 255, 255]


def test_each_image_has_noise_of_its_own_that_its_order_does_not_change(tmp_path: Path, fake: FakePipeline) -> None:
    planned = plan(request_for(cub(tmp_path)), Options(model=str(model(tmp_path / "m")), side=128, on="image"))
    pixels, bits = bird()

    def made(seed: int, key: str = "images/a.jpg") -> UInt8:
        subject = Subject(Sample(key, Path(key)), pixels, bits, {}, (seed, "styles", key))
        (image,) = planned.step(subject).images.values()
        return image

    first = made(0)
    assert not np.array_equal(first, made(1)) and not np.array_equal(first, made(0, "images/b.jpg"))
    assert np.array_equal(first, made(0))
    assert fake.calls[0]["prompt"].endswith("of a bird")  # a sample without a label


def test_what_a_model_does_not_give_is_an_outcome(
    tmp_path: Path, fake: FakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(model(tmp_path / "m"))
    pixels, bits = bird()
    planned = plan(request_for(cub(tmp_path)), Options(model=folder, prompt="hidden {class}"))
    assert "safety checker" in planned.step(subject_of(pixels, bits)).skipped
    assert "empty" in planned.step(subject_of(pixels, np.zeros_like(bits))).skipped

    def broken(self: FakePipeline, **given: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(FakePipeline, "__call__", broken)
    with pytest.raises(SampleError, match="out of memory"):
        planned.step(subject_of(pixels, bits))


def test_a_hostile_index_is_refused(tmp_path: Path, fake: FakePipeline) -> None:
    request = request_for(cub(tmp_path))
    for n, hostile in enumerate((["os", "system"], ["unet", "Mine"], ["diffusers"], ["diffusers", 3], [None, "x"])):
        with pytest.raises(WeightsError, match="names"):
            plan(request, Options(model=str(model(tmp_path / f"h{n}", unet=hostile))))
    with_program = model(tmp_path / "program")
    (with_program / "unet" / "diffusers.py").write_text("raise SystemExit")
    with pytest.raises(WeightsError, match="is a program"):
        plan(request, Options(model=str(with_program)))
    for text, said in (("[]", "_class_name"), ("{", "cannot be read"), ("[" * 100_000, "cannot be read")):
        (with_program / "model_index.json").write_text(text)
        with pytest.raises(WeightsError, match=said):
            plan(request, Options(model=str(with_program)))


def test_a_model_that_is_not_there_is_told(tmp_path: Path, fake: FakePipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    request = request_for(cub(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    hub: Any = ModuleType("huggingface_hub")

    def missing(name: str, local_files_only: bool) -> str:
        assert local_files_only
        raise OSError("not cached")

    hub.snapshot_download = missing
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    with pytest.raises(UsageError, match="hf download someone/something"):
        plan(request, Options(model="someone/something"))
    with pytest.raises(UsageError, match=r"model_index\.json"):
        plan(request, Options(model=str(tmp_path)))
    with pytest.raises(UsageError, match="'gpu' is not here: torch finds cpu"):
        plan(request, Options(model=str(model(tmp_path / "n")), device="gpu"))
    with pytest.raises(UsageError, match="less than one step"):
        plan(request, Options(model=str(model(tmp_path / "m")), strength=0.1, steps=5))


def test_other_weights_are_another_fingerprint(tmp_path: Path, fake: FakePipeline) -> None:
    request, folder = request_for(cub(tmp_path)), model(tmp_path / "m")
    before = plan(request, Options(model=str(folder))).fingerprint
    assert before == plan(request, Options(model=str(folder))).fingerprint
    (folder / "unet" / "model.safetensors").write_bytes(b"others")
    assert before != plan(request, Options(model=str(folder))).fingerprint


def test_a_missing_package_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diffusion, "find_spec", lambda name: None if name == "diffusers" else name)
    with pytest.raises(MissingExtraError, match=r"diffusers of the extra 'styles'"):
        plan(request_for(cub(tmp_path)), Options(model=str(tmp_path)))


# --- photographs ---------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/photos is not here")
def test_photographs_have_each_style(tmp_path: Path) -> None:
    root = SHARED / "CUB_200_2011"
    request = request_for(root)
    planned = plan(request, Options())
    sample = request.twin.dataset.samples[0]
    pixels = np.asarray(Image.open(sample.path).convert("RGB"))
    bits = np.zeros(pixels.shape[:2], np.bool_)
    x0, y0, x1, y1 = (round(v) for v in sample.boxes[0].tolist())
    bits[y0:y1, x0:x1] = True
    product: Product = planned.step(Subject(sample, pixels, bits, {}, (0, "styles", sample.key)))
    assert len(product.images) == len(NAMES)
    assert all(image[bits].std() > 20 for image in product.images.values())
