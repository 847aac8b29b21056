"""SAM's exported graphs in ONNX Runtime on the CPU: against the reference's stored numbers, and against PyTorch."""

from __future__ import annotations

import functools
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parity.golden import FULL, PORTABLE, Golden, resize
from parity.in_slots import together
from parity.test_sam import KINDS, PHOTOS, TOLERANCES, check_masks
from torch import Tensor

from fgfast.errors import ParityError
from fgfast.graphs import Contract
from fgfast.methods import Precision
from fgfast.models.sam import exported as exported_encoder
from fgfast.models.sam import transform
from fgfast.models.sam.architecture import architecture
from fgfast.models.sam.graph import ImageEncoderGraph, MaskDecoderGraph
from fgfast.models.sam.model import Sam
from fgfast.models.sam.segmenter import SamSegmenter
from fgfast.models.sam.sessions import sam_in_torch
from fgfast.models.serving.pixels import MEAN, STD
from fgfast.ops.second_look import FROM_BOX
from fgfast.records import Image
from fgfast.tolerances import SAM_FP32

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from fgfast.backends.onnxruntime import OnnxRuntimeSession  # noqa: E402
from fgfast.export import sam as exporting  # noqa: E402
from fgfast.export.check import compare  # noqa: E402
from fgfast.export.part import Part  # noqa: E402
from fgfast.export.trace import trace  # noqa: E402
from fgfast.export.widen import widen  # noqa: E402

TINY, TINY_SIDE = Golden(PORTABLE, "sam_tiny256"), 256
CALLS = ("single", "multi", "batch")


@dataclass(frozen=True)
class Case:
    """One photo through one exported model.

    Attributes:
        golden: the fixture.
        precision: of the encoder's matrix products.
        widened: the graph is checked in its widened form, for want of kernels.
        photo: name.
    """

    golden: Golden
    precision: Precision
    widened: bool
    photo: str


def cases() -> list[Any]:
    """Pytest parameters, of which those of minutes are marked."""
    fp32, bf16, fp16, wide_fp16 = ("fp32", False), ("bf16", True), ("fp16", False), ("fp16", True)
    plan: list[tuple[Golden, tuple[Any, ...], tuple[str, ...], bool]] = [
        (TINY, (fp32, bf16, fp16, wide_fp16), PHOTOS, False),
        (Golden(FULL, "sam_tiny1024"), (fp32, bf16, fp16), PHOTOS[:2], True),
        (Golden(FULL, "sam_vit_b"), (fp32, bf16, fp16), PHOTOS[:1], True),
        (Golden(FULL, "sam_vit_l"), (fp32,), PHOTOS[:1], True),
    ]
    return [
        pytest.param(
            Case(golden, precision, widened, photo),
            id=f"{golden}-{precision}{'-widened' if widened else ''}-{photo}",
            marks=[pytest.mark.full] if full else [],
        )
        for golden, ways, photos, full in plan
        for precision, widened in ways
        for photo in photos
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """For all files of graphs; removed at once, for pytest would keep gigabytes of three runs."""
    made = tmp_path_factory.mktemp("graphs")
    yield made
    shutil.rmtree(made)


@functools.lru_cache(maxsize=1)
def sam(golden: Golden, precision: Precision = "fp32") -> Sam:
    _ = golden.arrays  # skips where the fixture is absent
    return Sam.build(golden.stem.removeprefix("sam_"), golden.weights(), precision)


@functools.cache
def exported(folder: Path, golden: Golden, precision: Precision, batch: int | str = 1) -> tuple[Path, Part]:
    """The encoder's file and part; each takes seconds to make, which is why they are kept."""
    model, path = sam(golden, precision), folder / f"{golden}-{precision}-{batch}.onnx"
    part = exporting.encoder(model, model, precision, batch)
    trace(part.graph, part.contract, part.example, path)
    return path, part


@functools.lru_cache(maxsize=1)
def encoder(folder: Path, golden: Golden, precision: Precision, widened: bool) -> OnnxRuntimeSession:
    path, part = exported(folder, golden, precision)
    return OnnxRuntimeSession(widen(path, folder / "widened.onnx") if widened else path, part.contract)


@functools.lru_cache(maxsize=4)
def decoder(folder: Path, side: int, multimask: bool) -> OnnxRuntimeSession:
    """Prompt encoder and mask decoder have the same weights in all fixtures (README): one for each size is enough."""
    golden = TINY if side == TINY_SIDE else Golden(FULL, "sam_tiny1024")
    model, path = sam(golden), folder / f"decoder{side}{multimask}.onnx"
    part = exporting.decoder(model, multimask)
    trace(part.graph, part.contract, part.example, path)
    return OnnxRuntimeSession(path, part.contract)


def decoded(folder: Path, embeddings: Tensor, boxes: Tensor, size: tuple[int, int], call: str) -> dict[str, Tensor]:
    """What the decoder's graph gives for boxes of one image, under the fixtures' names."""
    side = 16 * embeddings.shape[-1]
    session = decoder(folder, side, multimask=call == "multi")
    index = torch.zeros(len(boxes), dtype=torch.long)
    out = session.run({"embeddings": embeddings, "image_index": index, "boxes": boxes})
    return {
        f"{call}/low_res_logits": out["logits"],
        f"{call}/iou": out["quality"],
        f"{call}/stability_low_res": out["stability"],
        f"{call}/logits": transform.to_stored_size(out["logits"], *size, side),
    }


def padded(pixels: Any, side: int) -> dict[str, Tensor]:
    """The encoder's inputs for one stored image, with noise where it must not look."""
    resized = resize(pixels, side)
    square = np.random.default_rng(5).integers(0, 256, (1, side, side, 3), np.uint8)
    square[0, : resized.shape[0], : resized.shape[1]] = resized
    return {"pixels": torch.from_numpy(square), "sizes": torch.tensor([resized.shape[:2]])}


def kind(name: str) -> str:
    return next(kind for part, kind in KINDS.items() if part in name)


@pytest.mark.parametrize("case", cases())
def test_fixture(case: Case, folder: Path) -> None:
    """From the resized image to embeddings, logits, qualities and masks."""
    golden, table, pixels = case.golden, TOLERANCES[case.precision], case.golden.photo(case.photo)
    session, size = encoder(folder, golden, case.precision, case.widened), pixels.shape[:2]
    side = sam(golden, case.precision).architecture.side
    embeddings = session.run(padded(pixels, side))["embeddings"]
    golden.check(f"{case.photo}/encoder/embedding", embeddings, table["features"])
    boxes = torch.from_numpy(transform.scale_boxes(golden.arrays[f"{case.photo}/boxes"], *size, side))
    for call in CALLS:
        out = decoded(folder, embeddings, boxes if call == "batch" else boxes[:1], size, call)
        for name, array in out.items():
            golden.check(f"{case.photo}/{name}", array, table[kind(name)])
        check_masks(golden, f"{case.photo}/{call}", out[f"{call}/logits"], case.precision)


@pytest.mark.parametrize("golden", [TINY, pytest.param(Golden(FULL, "sam_tiny1024"), marks=pytest.mark.full)], ids=str)
def test_decoder_fixture(golden: Golden, folder: Path) -> None:
    """The decoder alone, three boxes at once on a random embedding."""
    stored, grid = golden.arrays, sam(golden).architecture.grid
    embeddings = golden.draw("image_embedding", 1, 256, grid, grid)
    boxes = torch.from_numpy(stored["unit/boxes_model_frame"])
    for call in ("single", "multi"):
        out = decoded(folder, embeddings, boxes, tuple(stored["unit/original_size"].tolist()), call)
        for name, array in out.items():
            golden.check(f"unit/{name}", array, SAM_FP32[kind(name)])


def test_decoder_weights_are_the_same() -> None:
    """What `decoder` above relies on."""
    theirs = Golden(FULL, "sam_vit_b")
    _ = theirs.arrays
    ours, weights = TINY.weights(), theirs.weights()
    for key, tensor in ours.items():
        if key.startswith(("prompt_encoder.", "mask_decoder.")):
            assert torch.equal(tensor, weights[key]), key


def by_torch(contract: Contract, graph: torch.nn.Module) -> Any:
    def run(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with torch.inference_mode():
            out = graph(**inputs)
        return dict(zip([p.name for p in contract.outputs], out if isinstance(out, tuple) else (out,), strict=True))

    return run


@pytest.mark.parametrize("batch", [1, 2, "batch"])
def test_encoder_against_torch(batch: int | str, folder: Path) -> None:
    """Images that were not traced, as many as the contract says; where it leaves that open, one and three."""
    path, part = exported(folder, TINY, "fp32", batch)
    session = OnnxRuntimeSession(path, part.contract)
    reference = by_torch(part.contract, ImageEncoderGraph(sam(TINY)))
    measured = compare(part.contract, session.run, reference, part.cases(), SAM_FP32)
    assert [record["case"] for record in measured] == ["landscape", "portrait"]


@pytest.mark.parametrize("multimask", [False, True])
def test_decoder_against_torch(multimask: bool, folder: Path) -> None:
    """One box in one image, several boxes, several images."""
    session = decoder(folder, TINY_SIDE, multimask)
    reference = by_torch(session.contract, MaskDecoderGraph(sam(TINY), multimask))
    cases = exporting.decoder(sam(TINY), multimask).cases()
    measured = compare(session.contract, session.run, reference, cases, SAM_FP32)
    assert len(measured) == 9


def test_prompt_decoder_against_torch(folder: Path) -> None:
    """Points of all kinds, masks for some prompts and NaN where there is none; one and more images."""
    part, path = exporting.prompt_decoder(sam(TINY)), folder / "prompts.onnx"
    trace(part.graph, part.contract, part.example, path)
    session = OnnxRuntimeSession(path, part.contract)
    measured = compare(part.contract, session.run, by_torch(part.contract, part.reference), part.cases(), SAM_FP32)
    assert len(measured) == 9


@pytest.mark.full
def test_a_second_look_by_the_exported_decoder(folder: Path) -> None:
    """Five boxes an image in one call, several images: what PyTorch's decoder gives for the same slots."""
    ours_encoder = encoder_of_any_batch(folder)
    rows = [(Image(TINY.photo(photo)), np.array([20, 15, 90, 80], np.float32) + n) for n, photo in enumerate(PHOTOS)]
    by_onnx = SamSegmenter(ours_encoder, decoder(folder, TINY_SIDE, multimask=False), batch=len(rows))
    in_torch = sam_in_torch(sam(TINY), batch=len(rows))
    by_onnx.second_look = in_torch.second_look = True
    for one, other in zip(together(by_onnx, rows), together(in_torch, rows), strict=True):
        assert one.others.shape[0] == FROM_BOX and one.others.shape == other.others.shape
        for name in ("logits", "others"):
            difference = getattr(one, name).astype(np.float64) - getattr(other, name)
            SAM_FP32["low_res"].check(difference.reshape(-1), name)
        SAM_FP32["iou"].check(one.others_quality.astype(np.float64) - other.others_quality, "iou")


def encoder_of_any_batch(folder: Path) -> OnnxRuntimeSession:
    path, part = exported(folder, TINY, "fp32", "batch")
    return OnnxRuntimeSession(path, part.contract)


def test_another_function_is_refused(folder: Path) -> None:
    """Relative positions mirrored, which changes no shape."""
    model = Sam.build("tiny256", TINY.weights())
    for block in model.image_encoder.blocks:
        block.attn.rel_pos_h = torch.nn.Parameter(block.attn.rel_pos_h.flip(0), requires_grad=False)
    part = exporting.encoder(model, model)
    mirrored, reference = by_torch(part.contract, part.graph), by_torch(part.contract, ImageEncoderGraph(sam(TINY)))
    with pytest.raises(ParityError, match="sam_image_encoder, landscape: embeddings is off by"):
        compare(part.contract, mirrored, reference, part.cases(), SAM_FP32)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_operators(precision: Precision, folder: Path) -> None:
    """Attention, norms and GELU are single operators; in half precision only products are half."""
    path, _ = exported(folder, TINY, precision)
    graph = onnx.shape_inference.infer_shapes(onnx.load_model(path, load_external_data=False), strict_mode=True).graph
    count, blocks = Counter(node.op_type for node in graph.node), architecture("tiny256").depth
    assert (count["Attention"], count["Gelu"], count["LayerNormalization"]) == (blocks, blocks, 2 * blocks + 2)
    # Four a block, the neck's 1x1 convolution; two tables of relative positions a block.
    assert (count["Gemm"], count["MatMul"], count["Conv"]) == (4 * blocks + 1, 2 * blocks, 2)
    assert not count.keys() & {"Softmax", "Einsum", "GatherND", "ScatterND", "If", "Loop", "Scan", "NonZero", "Erf"}
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input, *graph.output)}
    types |= {value.name: value.data_type for value in graph.initializer}
    half = onnx.TensorProto.DataType.Value({"fp32": "FLOAT", "bf16": "BFLOAT16", "fp16": "FLOAT16"}[precision])
    for node in graph.node:
        if node.op_type in ("Attention", "Gemm", "MatMul", "Conv"):
            assert {types[name] for name in (*node.input, *node.output)} == {half}, node
        if node.op_type in ("LayerNormalization", "Add"):
            assert {types[name] for name in (*node.input, *node.output)} == {onnx.TensorProto.FLOAT}, node
        if node.op_type == "Attention" and precision != "fp32":
            assert {a.name: a.i for a in node.attribute}["softmax_precision"] == onnx.TensorProto.FLOAT


@pytest.mark.parametrize("heads", [1, 3, 4])
def test_masks_of_a_few_heads_at_a_time(heads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The biggest models have more heads than one mask is made for; tiny256 has 4."""
    monkeypatch.setattr(exported_encoder, "_HEADS", heads)
    model = sam(TINY)
    inputs = padded(TINY.photo(PHOTOS[0]), 256)
    with torch.inference_mode():
        pixels = ImageEncoderGraph(model).images(inputs["pixels"], inputs["sizes"])
        difference = exported_encoder.ExportedEncoder(model.image_encoder)(pixels) - model.image_encoder(pixels)
    SAM_FP32["features"].check(difference.double().flatten().numpy(), f"{heads} heads at a time")


def normalised(image: np.ndarray, side: int) -> torch.Tensor:
    """SAM.md's preprocessing, written out: (h, w, 3) uint8 -> (1, 3, side, side) float32, normalised, then padded."""
    mean, std = (np.array(x, np.float32) for x in (MEAN, STD))
    square = np.zeros((side, side, 3), np.float32)
    square[: image.shape[0], : image.shape[1]] = (image.astype(np.float32) - mean) / std
    return torch.from_numpy(square).permute(2, 0, 1)[None]


def test_graph_modules_are_the_model() -> None:
    """uint8 images with noise for padding, in one batch, give what normalised and padded ones give."""
    model = sam(TINY)
    images = [TINY.photo(photo) for photo in PHOTOS]
    inputs = [padded(image, 256) for image in images]
    resized = [resize(image, 256) for image in images]
    with torch.inference_mode():
        wanted = model.image_encoder(torch.cat([normalised(image, 256) for image in resized]))
        pixels, sizes = (torch.cat([x[name] for x in inputs]) for name in ("pixels", "sizes"))
        embeddings = ImageEncoderGraph(model)(pixels, sizes)
        SAM_FP32["features"].check((embeddings - wanted).double().numpy().reshape(-1), "embeddings")
        boxes, index = torch.tensor([[10.0, 20, 200, 180], [5, 5, 60, 70], [9, 8, 9, 8]]), torch.tensor([2, 0, 1])
        for multimask in (False, True):
            prompts = model.prompt_encoder
            shared = prompts(boxes), prompts.dense_pe, prompts.no_mask
            logits, iou = model.mask_decoder(embeddings, index, *shared, multimask)
            found = MaskDecoderGraph(model, multimask)(embeddings, index, boxes)
            for ours, theirs in zip(found, (logits, iou, transform.stability(logits)), strict=True):
                torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)
