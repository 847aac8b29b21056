"""Grounding DINO's weights and precisions: where they come from, what is refused, what half precision changes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from parity.in_slots import alone

from fgfast.backends.session import DTYPES
from fgfast.errors import MissingExtraError, UnknownNameError, UsageError, WeightsError
from fgfast.methods import ModelSpec, Precision
from fgfast.models.grounding_dino import small
from fgfast.models.grounding_dino.checkpoint import NAMES
from fgfast.models.grounding_dino.graph import ImageGraph
from fgfast.models.grounding_dino.precision import with_precision
from fgfast.models.grounding_dino.sessions import build
from fgfast.models.serving.batches import resized
from fgfast.records import Image
from fgfast.studies import torchvision_shim

torchvision_shim.declare()

PHRASES = ("Bird", "red car", "dog")
# Of token logits with a standard deviation of 5: mantissas of 8 and 11 bits.
HALF_LOGITS: dict[Precision, float] = {"bf16": 0.6, "fp16": 0.08}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """The model is too small for more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the Hugging Face cache holds it."""
    folder = tmp_path_factory.mktemp("checkpoint")
    for part in (small.network(0), small.tokenizer(), small.image_processor()):
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def image() -> Image:
    blocks = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    return Image(np.ascontiguousarray(blocks.repeat(8, axis=0).repeat(8, axis=1)[:90, :120]))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision(image: Image, precision: Precision) -> None:
    exact, detector = small.network(0).eval(), build(ModelSpec("grounding_dino_tiny", "random:0", precision), PHRASES)
    half = ImageGraph(with_precision(small.network(0), precision), precision)
    tokens = detector.tokens[None]
    small_image = torch.from_numpy(resized(image.pixels, detector.resized_size(*image.size)))[None]
    with torch.inference_mode():
        logits, boxes, _ = half(small_image, torch.tensor([small_image.shape[1:3]]), tokens)
    assert logits.dtype == boxes.dtype == torch.float32
    assert not torch.equal(boxes, boxes.to(DTYPES[precision]).float())
    assert alone(detector, image).boxes.shape[0] > 3

    # Compared before the network chooses its queries: whom it chooses, and in what order, turns on small differences.
    pixels = half.normalise(small_image)
    with torch.no_grad():
        wanted = exact(pixel_values=pixels, input_ids=tokens).enc_outputs_class
        with torch.autocast("cpu", DTYPES[precision]):
            rough = half.model(pixel_values=pixels, input_ids=tokens).enc_outputs_class
    seen = torch.isfinite(wanted)
    assert rough.dtype == torch.float32 and torch.equal(seen, torch.isfinite(rough))
    assert 0 < (wanted - rough)[seen].abs().max() < HALF_LOGITS[precision]


class TestWeights:
    def test_a_folder(self, checkpoint: Path, image: Image) -> None:
        got = alone(build(ModelSpec("grounding_dino_base", str(checkpoint)), PHRASES), image)
        wanted = alone(build(ModelSpec("grounding_dino_tiny", "random:0"), PHRASES), image)
        assert got.labels == wanted.labels and np.array_equal(got.scores, wanted.scores)
        assert np.array_equal(got.boxes, wanted.boxes)

    def test_images_that_are_normalised_otherwise(self, checkpoint: Path, tmp_path: Path) -> None:
        for file in checkpoint.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        processor = small.image_processor()
        processor.image_mean = [0.5, 0.5, 0.5]
        processor.save_pretrained(tmp_path)
        with pytest.raises(UsageError, match=r"normalises images with mean \[0.5, 0.5, 0.5\]"):
            build(ModelSpec("grounding_dino_tiny", str(tmp_path)), PHRASES)

    def test_the_cache(self, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("fgfast.models.files.weights.path", lambda name: checkpoint)
        assert build(ModelSpec("grounding_dino_tiny"), PHRASES).phrases == PHRASES

    @pytest.mark.parametrize("name", NAMES)
    def test_absent_says_what_to_type(self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("HF_HUB_CACHE", raising=False)
        monkeypatch.setenv("HF_HOME", str(tmp_path))
        with pytest.raises(UsageError, match=f"fgfast models pull {name}"):
            build(ModelSpec(name), PHRASES)

    def test_weights_that_lack_some(self, checkpoint: Path, tmp_path: Path) -> None:
        from safetensors.torch import load_file, save_file

        for file in checkpoint.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        weights = load_file(checkpoint / "model.safetensors")
        weights.pop("model.text_projection.weight")
        save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(WeightsError, match=r"lacks 1 weights, the first are .*text_projection"):
            build(ModelSpec("grounding_dino_tiny", str(tmp_path)), PHRASES)

    def test_no_checkpoint(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"lacks config\.json, model\.safetensors"):
            build(ModelSpec("grounding_dino_tiny", str(tmp_path)), PHRASES)

    def test_names(self) -> None:
        with pytest.raises(UnknownNameError, match="grounding_dino_tiny"):
            build(ModelSpec("grounding_dino_tini"), PHRASES)
        with pytest.raises(UsageError, match="random:SEED"):
            build(ModelSpec("grounding_dino_tiny", "random:x"), PHRASES)
        with pytest.raises(UnknownNameError, match="precision"):
            build(ModelSpec("grounding_dino_tiny", "random:0", "int7"), PHRASES)  # type: ignore[arg-type]

    @pytest.mark.parametrize("package", ["torch", "transformers"])
    def test_the_extra_is_named(self, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(MissingExtraError, match=rf"{package} .*extra 'text'.*pip install"):
            build(ModelSpec("grounding_dino_tiny", "random:0"), PHRASES)
