"""A model's output that is no number fails its image alone, after one attempt in float32; it never becomes a mask."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="models need the extra models")

from fgfast import methods  # noqa: E402
from fgfast.errors import DeviceMemoryError, NotFiniteError, UsageError  # noqa: E402
from fgfast.methods import ModelSpec  # noqa: E402
from fgfast.models.detic.build import build_detic  # noqa: E402
from fgfast.models.detic.config import NANO  # noqa: E402
from fgfast.models.detic.detector import DeticDetector  # noqa: E402
from fgfast.models.detic.sessions import detic_in_torch  # noqa: E402
from fgfast.models.grounding_dino import sessions as grounding_dino  # noqa: E402
from fgfast.models.sam.build import build_sam  # noqa: E402
from fgfast.models.sam.segmenter import SamSegmenter  # noqa: E402
from fgfast.models.sam.sessions import sam_in_torch, segmenter  # noqa: E402
from fgfast.models.serving.batches import finite_rows  # noqa: E402
from fgfast.pipeline.batched_stages import Rechecked, detect_stage  # noqa: E402
from fgfast.pipeline.job import _rechecked  # noqa: E402
from fgfast.pipeline.work import Work, result_of  # noqa: E402
from fgfast.records import Detections, Image, Sample, Size  # noqa: E402
from fgfast.runner import Finished, run_batch, run_item  # noqa: E402
from fgfast.runner.batching import Ring  # noqa: E402
from fgfast.studies import torchvision_shim  # noqa: E402

torchvision_shim.declare()

BOX = np.array([5, 5, 60, 50], np.float32)
POISONS = [math.nan, math.inf, -math.inf]
TINY = ModelSpec("sam_tiny256", "random:1", batch=3)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_image(seed: int) -> Image:
    blocks = np.random.default_rng(seed).integers(0, 256, (8, 10, 3), np.uint8)
    return Image(np.ascontiguousarray(blocks.repeat(8, axis=0).repeat(8, axis=1)))


def poisoned(session: Any, output: str, row: int, value: float) -> Any:
    """A session with one element of one row of one output replaced."""

    class Poisoned:
        def __getattr__(self, name: str) -> Any:
            return getattr(session, name)

        def run(self, *given: Any) -> dict[str, Any]:
            found = {name: tensor.clone() for name, tensor in session.run(*given).items()}
            if row < len(found[output]):
                flat = found[output][row].view(-1)
                flat[int(torch.randint(len(flat), ()))] = value
            return found

    return Poisoned()


def sam_in_pytorch() -> SamSegmenter:
    return sam_in_torch(build_sam(TINY), batch=3)


@pytest.fixture(scope="module")
def sam_in_onnxruntime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SamSegmenter]:
    pytest.importorskip("onnxruntime", reason="exported graphs need the extra export")
    pytest.importorskip("onnxscript", reason="exporting needs the extra export")
    from fgfast.export import make

    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FGFAST_CACHE", str(cache))
        patch.setattr(methods, "METHODS", (*methods.METHODS, replace(methods.method("sam_vit_b"), name="sam_tiny256")))
        make.export(TINY, out=cache / "graphs", on_message=lambda line: None)
        yield segmenter(replace(TINY, backend="onnxruntime"))


@pytest.mark.parametrize("value", POISONS)
@pytest.mark.parametrize("output", ["logits", "quality"])
@pytest.mark.parametrize("backend", ["torch", pytest.param("onnxruntime", marks=pytest.mark.full)])
def test_one_image_of_a_batch_of_sams_fails(
    backend: str, output: str, value: float, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = sam_in_pytorch() if backend == "torch" else request.getfixturevalue("sam_in_onnxruntime")
    rows = [(make_image(n), BOX) for n in range(3)]
    wanted = run_batch(model, rows)
    monkeypatch.setattr(model, "decoder", poisoned(model.decoder, output, 1, value))
    assert_second_fails(model, rows, output)
    slot = model.slot(model.bucket(*rows[0]))
    for n, row in enumerate(rows):
        model.fill(slot, n, *row)
    model.launch(slot, 3)
    model.wait(slot)
    for n in (0, 2):
        np.testing.assert_array_equal(model.read(slot, n).logits, wanted[n].logits)


def assert_second_fails(model: Any, rows: list[tuple[Any, ...]], output: str) -> None:
    slot = model.slot(model.bucket(*rows[0]))
    for n, row in enumerate(rows):
        model.fill(slot, n, *row)
    model.launch(slot, len(rows))
    model.wait(slot)
    for n in range(len(rows)):
        if n == 1:
            with pytest.raises(NotFiniteError, match=output) as caught:
                model.read(slot, n)
            assert caught.value.reason == "nan"
        else:
            model.read(slot, n)


@pytest.fixture(scope="module")
def detectors() -> dict[str, Any]:
    words = np.random.default_rng(0).normal(size=(3, 512)).astype(np.float32)
    canvases = detic_in_torch(build_detic(ModelSpec("detic_nano", "random:0")), batch=2)
    small = replace(NANO, shorter_edge=64, longest_edge=96)
    dino = grounding_dino.build(ModelSpec("grounding_dino_tiny", "random:0", batch=2), ("bird", "dog"))
    return {"detic": DeticDetector(canvases, small, ("a", "b", "c"), words), "dino": dino}


@pytest.mark.parametrize(
    ("name", "output", "values"),
    [
        ("detic", "boxes", POISONS),
        ("detic", "scores", POISONS),
        ("dino", "boxes", POISONS),
        ("dino", "logits", [math.nan, math.inf]),  # where -inf stands for padding
    ],
)
def test_one_image_of_a_batch_of_detectors_fails(
    detectors: dict[str, Any], name: str, output: str, values: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = detectors[name]
    session = model.canvases.session
    for value in values:
        with monkeypatch.context() as patch:
            patch.setattr(
                model.canvases, "session", lambda *size, value=value: poisoned(session(*size), output, 1, value)
            )
            assert_second_fails(model, [(make_image(n),) for n in range(2)], output)


@pytest.mark.parametrize("poison", [math.nan, math.inf])
@pytest.mark.parametrize(
    "key",
    [
        "image_encoder.patch_embed.proj.weight",
        "image_encoder.neck.0.weight",
        "mask_decoder.iou_token.weight",
        "mask_decoder.output_upscaling.0.weight",
        "mask_decoder.iou_prediction_head.layers.0.weight",
    ],
)
def test_poisoned_weights_give_no_mask(key: str, poison: float) -> None:
    sam = build_sam(TINY)
    with torch.no_grad():
        sam.get_parameter(key).view(-1)[0] = poison
    with pytest.raises(NotFiniteError):
        run_batch(sam_in_torch(sam), [(make_image(0), BOX)])


@pytest.mark.parametrize("poison", [math.nan, -math.inf])
def test_a_file_of_weights_that_are_not_finite_is_warned_about(
    poison: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """PyTorch's attention on CPUs takes a query of NaN for one without keys, and the mask looks ordinary."""
    state = {name: tensor.clone() for name, tensor in build_sam(TINY).state_dict().items()}
    torch.save(state, tmp_path / "whole.pth")
    build_sam(replace(TINY, weights=str(tmp_path / "whole.pth")))
    assert not caplog.records
    key = "mask_decoder.transformer.layers.0.self_attn.q_proj.weight"
    state[key].view(-1)[3] = poison
    torch.save(state, tmp_path / "poisoned.pth")
    build_sam(replace(TINY, weights=str(tmp_path / "poisoned.pth")))
    assert key in caplog.text and "poisoned.pth" in caplog.text


def test_overflow_of_half_precision_is_computed_once_more_in_float32(tmp_path: Path) -> None:
    """Weights whose hidden values exceed float16's 65,504, and not float32's range."""
    sam = build_sam(TINY)
    state = {name: tensor.clone() for name, tensor in sam.state_dict().items()}
    first = next(name for name in state if name.endswith("mlp.lin1.weight") and name.startswith("image_encoder"))
    state[first] *= 1e7
    torch.save(state, tmp_path / "large.pth")
    spec = replace(TINY, weights=str(tmp_path / "large.pth"), batch=1)
    exact = sam_in_torch(build_sam(spec))
    half = sam_in_torch(build_sam(replace(spec, precision="fp16")))
    given = (make_image(0), BOX)
    with pytest.raises(NotFiniteError):
        run_batch(half, [given])
    (found,) = run_batch(Rechecked(half, lambda: exact), [given])
    (wanted,) = run_batch(exact, [given])
    np.testing.assert_array_equal(found.logits, wanted.logits)


@dataclass
class Fake:
    """A detector on slots that fails with the numbers of images listed as bad."""

    bad: frozenset[int]
    device: str = "cpu"
    batch: int = 4
    depth: int = 1
    buckets: int = 1
    computed: int = 0

    def bucket(self, image: Image) -> Size:
        return image.size

    def rows(self, bucket: Size) -> int:
        return self.batch

    def slot(self, bucket: Size) -> dict[int, int]:
        return {}

    def fill(self, slot: dict[int, int], row: int, image: Image) -> None:
        slot[row] = int(image.pixels[0, 0, 0])

    def launch(self, slot: dict[int, int], rows: int) -> None:
        self.computed += rows

    def wait(self, slot: dict[int, int]) -> None:
        """Everything is done."""

    def read(self, slot: dict[int, int], row: int) -> Detections:
        if slot[row] in self.bad:
            raise NotFiniteError(["boxes"])
        return Detections(np.array([[0, 0, 5, 5]], np.float32), np.array([slot[row] / 100], np.float32), ("bird",))

    def shrink(self) -> None:
        """Its shapes are not fixed."""


def numbered(n: int) -> Image:
    return Image(np.full((10, 10, 3), n, np.uint8))


def test_only_the_images_concerned_are_computed_again_and_the_exact_model_is_built_once() -> None:
    made: list[Fake] = []

    def build() -> Fake:
        made.append(Fake(frozenset()))
        return made[-1]

    model = Rechecked(Fake(frozenset({1, 2})), build)
    assert not made
    found = run_batch(model, [(numbered(n),) for n in range(4)])
    assert [round(float(d.scores[0]) * 100) for d in found] == [0, 1, 2, 3]
    assert len(made) == 1 and made[0].computed == 2


def test_the_runner_opens_as_many_batches_as_for_the_model_itself() -> None:
    for model in (Fake(frozenset()), Fake(frozenset(), buckets=5)):
        rings = [Ring(detect_stage(one), linger=0.05) for one in (model, Rechecked(model, None))]
        assert rings[0].slots == rings[1].slots == model.depth + 1 + model.buckets


@pytest.mark.parametrize("error", [UsageError("no weights"), DeviceMemoryError("full")])
def test_without_a_model_in_float32_the_image_fails_as_before(error: Exception) -> None:
    def build() -> Fake:
        raise error

    for exact in (None, build):
        with pytest.raises(NotFiniteError, match="boxes"):
            run_batch(Rechecked(Fake(frozenset({7})), exact), [(numbered(7),)])


@pytest.mark.parametrize("backend", methods.BACKENDS)
@pytest.mark.parametrize("precision", methods.PRECISIONS)
def test_a_run_has_the_same_model_in_float32_behind_one_of_half_precision(backend: Any, precision: Any) -> None:
    specs: list[ModelSpec] = []

    def build(spec: ModelSpec) -> Fake:
        specs.append(spec)
        return Fake(frozenset() if len(specs) > 1 else frozenset({1}))

    spec = ModelSpec("sam_vit_b", "random:0", precision, "cpu", backend, 8)
    model = _rechecked(build(spec), spec, build)
    if precision == "fp32":
        with pytest.raises(NotFiniteError):
            run_batch(model, [(numbered(1),)])
        return
    run_batch(model, [(numbered(1),)])
    exact = specs[-1]
    assert (exact.precision, exact.backend, exact.batch, exact.form) == ("fp32", "torch", 1, "eager")
    assert (exact.name, exact.weights, exact.device) == (spec.name, spec.weights, spec.device)


def test_the_outcome_says_nan() -> None:
    work = Work(0, Sample("a.jpg", Path("a.jpg")), "a.jpg", image=numbered(3))
    with pytest.raises(NotFiniteError) as caught:
        run_item([detect_stage(Rechecked(Fake(frozenset({3})), lambda: Fake(frozenset({3}))))], work)
    outcome = result_of(Finished(work, "detect", caught.value)).outcome
    assert (outcome.status, outcome.reasons, outcome.stage) == ("failed", ("nan",), "detect")
    assert "boxes" in outcome.detail


def test_rows_are_judged_by_all_their_elements() -> None:
    outputs = {"a": torch.zeros(6, 3, 4), "b": torch.ones(6, 2)}
    outputs["a"][1, 2, 3], outputs["a"][2, 0, 0], outputs["b"][3, 1] = math.nan, math.inf, -math.inf
    outputs["a"][4, 0, 0] = -math.inf
    found = finite_rows(outputs, masked=("a",))
    assert found["finite a"].tolist() == [True, False, False, True, True, True]
    assert found["finite b"].tolist() == [True, True, True, False, True, True]
