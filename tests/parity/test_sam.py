"""SAM against the reference's stored numbers: every stored array of every photo."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from parity.golden import FULL, PORTABLE, Golden, resize
from parity.in_slots import alone
from torch import Tensor

from fgfast import ops
from fgfast.methods import Precision
from fgfast.models.sam import transform
from fgfast.models.sam.graph import ImageEncoderGraph, MaskDecoderGraph
from fgfast.models.sam.mask_decoder import in_rows
from fgfast.models.sam.model import Sam
from fgfast.models.sam.sessions import sam_in_torch
from fgfast.records import Image
from fgfast.tolerances import (
    SAM_BF16,
    SAM_FLIP_LOGIT,
    SAM_FLIPPED,
    SAM_FP16,
    SAM_FP32,
    SAM_HALF_MASK_IOU,
)

PHOTOS = ("dog", "groceries_tall", "truck_large")
TOLERANCES = {"fp32": SAM_FP32, "bf16": SAM_BF16, "fp16": SAM_FP16}
# Name of a stored array, up to its last parts -> entry of the tolerance table.
KINDS = {
    "input/tensor": "input",
    "boxes_model_frame": "boxes_px",
    "batch/sparse_embeddings": "positions",
    "batch/dense_embeddings": "positions",
    "encoder/block": "blocks",
    "encoder/": "features",
    "decoder/": "features",
    "low_res_logits": "low_res",
    "iou": "iou",
    "stability": "stability",
    "logits": "logits",
}
# Compared exactly, or as bits, by tests of their own.
SEPARATE = ("input/original_size", "input/input_size", "input/resized_uint8", "input/resized_sha256", "boxes")
SEPARATE_LAST = ("mask_bits", "mask_shape", "mask_area", "near_zero_pixels")


@dataclass(frozen=True)
class Case:
    """One photo through one model in one precision."""

    golden: Golden
    precision: Precision
    photo: str

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """The photo's stored arrays, without its name."""
        every = self.golden.arrays
        return {k.removeprefix(f"{self.photo}/"): v for k, v in every.items() if k.startswith(f"{self.photo}/")}


def cases() -> list[Any]:
    """Pytest parameters: ViT-B in the quick run with one photo, in the full run with all; ViT-L in the full run."""
    found = []
    plan: list[tuple[Golden, tuple[Precision, ...], tuple[str, ...], bool]] = [
        (Golden(PORTABLE, "sam_tiny256"), ("fp32", "bf16", "fp16"), PHOTOS, False),
        (Golden(FULL, "sam_tiny256"), ("fp32",), PHOTOS, False),
        (Golden(FULL, "sam_tiny1024"), ("fp32", "bf16"), PHOTOS[:2], False),
        (Golden(FULL, "sam_vit_b"), ("fp32",), PHOTOS[:1], False),
        (Golden(FULL, "sam_vit_b"), ("bf16",), PHOTOS[:1], True),  # minutes where bf16 is emulated
        (Golden(FULL, "sam_vit_b"), ("fp32", "bf16"), PHOTOS[1:], True),
        (Golden(FULL, "sam_vit_l"), ("fp32", "bf16"), ("dog", "truck_large"), True),
    ]
    for golden, precisions, photos, full in plan:
        for precision in precisions:
            for photo in photos:
                marks = [pytest.mark.full] if full else []
                found.append(
                    pytest.param(Case(golden, precision, photo), id=f"{golden}-{precision}-{photo}", marks=marks)
                )
    return found


# Of module scope, so that tests are run case by case and each case is computed once.
@pytest.fixture(scope="module", params=cases())
def case(request: pytest.FixtureRequest) -> Case:
    chosen: Case = request.param
    return chosen


@functools.lru_cache(maxsize=1)
def sam(golden: Golden, precision: Precision) -> Sam:
    _ = golden.arrays  # skips where the fixture is absent
    return Sam.build(golden.stem.removeprefix("sam_"), golden.weights(), precision)


@contextmanager
def recorded(model: Sam, out: dict[str, Tensor]) -> Iterator[None]:
    """Collect what modules give out, under the fixtures' names."""
    encoder, decoder = model.image_encoder, model.mask_decoder
    modules = {"encoder/patch_embed": encoder.patch_embed, "encoder/embedding": encoder}
    modules |= {f"encoder/block{n:02d}": block for n, block in enumerate(encoder.blocks)}
    modules |= {"transformer": decoder.transformer, "decoder/upscaled": decoder.output_upscaling}
    modules |= {f"hypernetwork{n}": mlp for n, mlp in enumerate(decoder.output_hypernetworks_mlps)}

    def keep(name: str) -> Any:
        return lambda _module, _inputs, output: out.update({name: output})

    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    out["decoder/tokens"], out["decoder/image_tokens"] = out.pop("transformer")
    # Squares of pixels in squares of pixels, channels innermost: as an image per channel.
    squares = out["decoder/upscaled"].permute(0, 4, 1, 2, 3).flatten(2)
    out["decoder/upscaled"] = in_rows(squares, model.architecture.grid)
    maps = range(len(decoder.output_hypernetworks_mlps))
    out["decoder/hypernetworks"] = torch.stack([out.pop(f"hypernetwork{n}") for n in maps], 1)


def decoded(model: Sam, embeddings: Tensor, boxes: Tensor, size: tuple[int, int], name: str) -> dict[str, Tensor]:
    """Everything that is stored of one call of the decoder."""
    index = torch.zeros(len(boxes), dtype=torch.long)
    low_res, iou, stability = MaskDecoderGraph(model, multimask=name == "multi")(embeddings, index, boxes)
    logits = transform.to_stored_size(low_res, *size, model.architecture.side)
    return {
        f"{name}/low_res_logits": low_res,
        f"{name}/iou": iou,
        f"{name}/logits": logits,
        f"{name}/stability_low_res": stability,
        f"{name}/stability_full_res": transform.stability(logits),
    }


@functools.lru_cache(maxsize=1)
def trace(case: Case) -> dict[str, Tensor]:
    """Everything that is stored of a photo, computed by fgfast, under the fixture's names without the photo."""
    model, pixels = sam(case.golden, case.precision), case.golden.photo(case.photo)
    side, size = model.architecture.side, (pixels.shape[0], pixels.shape[1])
    boxes = torch.from_numpy(transform.scale_boxes(case.arrays["boxes"], *size, side))
    out: dict[str, Tensor] = {"boxes_model_frame": boxes}
    with torch.inference_mode():
        resized = resize(pixels, side)
        on_square = torch.full((1, side, side, 3), 200, dtype=torch.uint8)
        on_square[0, : resized.shape[0], : resized.shape[1]] = torch.tensor(resized)
        sizes = torch.tensor([resized.shape[:2]])
        out["input/tensor"] = ImageEncoderGraph(model).images(on_square, sizes)
        with recorded(model, out):
            embedding = model.image_encoder(out["input/tensor"])
            out |= decoded(model, embedding, boxes[:1], size, "multi")
            out |= decoded(model, embedding, boxes[:1], size, "single")
        out |= decoded(model, embedding, boxes, size, "batch")
        out["batch/sparse_embeddings"] = model.prompt_encoder(boxes)
        out["batch/dense_embeddings"] = dense(model, len(boxes))
    return out


def dense(model: Sam, boxes: int) -> Tensor:
    grid = model.architecture.grid
    return model.prompt_encoder.no_mask.view(1, -1, 1, 1).expand(boxes, -1, grid, grid)


def tolerance(name: str, precision: str) -> Any:
    table = TOLERANCES[precision]
    kind = next(kind for part, kind in KINDS.items() if part in name)
    return table.get(kind, table["features"])


def test_every_stored_array_is_checked(case: Case) -> None:
    names = {n for n in case.golden.names(case.photo) if n not in SEPARATE and n.split("/")[-1] not in SEPARATE_LAST}
    assert names == set(trace(case)), names ^ set(trace(case))


def test_preprocessing(case: Case) -> None:
    pixels, stored = case.golden.photo(case.photo), case.arrays
    resized = resize(pixels, sam(case.golden, case.precision).architecture.side)
    assert tuple(stored["input/original_size"]) == pixels.shape[:2]
    assert tuple(stored["input/input_size"]) == resized.shape[:2]
    assert tuple(stored["input/resized_uint8/shape"]) == resized.shape
    assert hashlib.sha256(resized.tobytes()).digest() == stored["input/resized_sha256"].tobytes()


def test_arrays(case: Case) -> None:
    for name, array in trace(case).items():
        case.golden.check(f"{case.photo}/{name}", array, tolerance(name, case.precision))


@pytest.mark.parametrize("call", ["single", "multi", "batch"])
def test_masks(case: Case, call: str) -> None:
    check_masks(case.golden, f"{case.photo}/{call}", trace(case)[f"{call}/logits"], case.precision)


def check_masks(golden: Golden, name: str, logits: Tensor, precision: str) -> None:
    stored, ours = golden.arrays, logits.numpy()
    shape = tuple(stored[f"{name}/mask_shape"])
    assert ours.shape == shape
    theirs = np.unpackbits(stored[f"{name}/mask_bits"], count=ours.size).reshape(shape).astype(bool)
    assert (theirs.sum((-1, -2)) == stored[f"{name}/mask_area"]).all()
    bits = ours > transform.THRESHOLD
    if precision != "fp32":
        union = (bits | theirs).sum((-1, -2))
        iou = (bits & theirs).sum((-1, -2)) / np.maximum(union, 1)
        assert iou[union > 0].min() > SAM_HALF_MASK_IOU
        return
    flipped = bits != theirs
    assert flipped.mean((-1, -2)).max() <= SAM_FLIPPED
    assert np.abs(ours[flipped]).max(initial=0) < SAM_FLIP_LOGIT
    near = np.stack([(np.abs(ours) < limit).sum((-1, -2)) for limit in (1e-3, 1e-2, 1e-1)], -1)
    pixels = shape[-1] * shape[-2]
    assert np.abs(near - stored[f"{name}/near_zero_pixels"]).max() <= SAM_FLIPPED * pixels


@pytest.mark.parametrize(
    "golden",
    [
        Golden(PORTABLE, "sam_tiny256"),
        Golden(FULL, "sam_tiny1024"),
        pytest.param(Golden(FULL, "sam_vit_l"), marks=pytest.mark.full),
    ],
    ids=str,
)
def test_unit(golden: Golden) -> None:
    """Prompt encoder and decoder alone, three boxes at once on a random embedding."""
    model, stored = sam(golden, "fp32"), golden.arrays
    grid = model.architecture.grid
    height, width = size = tuple(stored["unit/original_size"].tolist())
    boxes = torch.from_numpy(stored["unit/boxes_model_frame"])
    embedding = golden.draw("image_embedding", 1, 256, grid, grid)
    out: dict[str, Tensor] = {}
    with torch.inference_mode():
        with recorded(model, out):
            model.image_encoder(torch.zeros(1, 3, 16 * grid, 16 * grid))
            calls = decoded(model, embedding, boxes, size, "multi") | decoded(model, embedding, boxes, size, "single")
        prompts = model.prompt_encoder
        out = {n: a for n, a in out.items() if n.startswith("decoder/")} | calls
        out["sparse_embeddings"], out["dense_embeddings"] = prompts(boxes), dense(model, len(boxes))
        out["dense_pe"] = prompts.dense_pe.T.reshape(1, 256, grid, grid)
    own = {"boxes_model_frame", "input_size", "original_size"}
    names = {n for n in golden.names("unit") if n not in own and n.split("/")[-1] not in SEPARATE_LAST}
    assert names == set(out), names ^ set(out)
    assert tuple(stored["unit/input_size"]) == transform.resized_size(height, width, model.architecture.side)
    for name, array in out.items():
        exact = name in ("sparse_embeddings", "dense_embeddings", "dense_pe")
        golden.check(f"unit/{name}", array, SAM_FP32["positions"] if exact else tolerance(name, "fp32"))
    for call in ("single", "multi"):
        check_masks(golden, f"unit/{call}", out[f"{call}/logits"], "fp32")


@pytest.mark.parametrize("photo", PHOTOS)
def test_boxes_through_the_segmenter(photo: str) -> None:
    """Every box of a photo, from the stored image to masks at full size."""
    golden = Golden(PORTABLE, "sam_tiny256")
    boxes, image = golden.arrays[f"{photo}/boxes"], Image(golden.photo(photo))
    found = [alone(sam_in_torch(sam(golden, "fp32")), image, box) for box in boxes]
    size = transform.resized_size(*image.size, 256)
    masks = ops.mask_post(np.stack([low.logits for low in found]), tuple(image.size), size, 256)
    theirs = np.unpackbits(golden.arrays[f"{photo}/batch/mask_bits"], count=masks.bits.size).reshape(masks.bits.shape)
    assert (masks.bits != theirs).mean() <= SAM_FLIPPED
    quality = np.stack([low.quality for low in found])
    SAM_FP32["iou"].check((quality - golden.arrays[f"{photo}/batch/iou"]).reshape(-1), photo)
    stability = golden.arrays[f"{photo}/batch/stability_full_res"]
    SAM_FP32["stability"].check((masks.stability - stability).reshape(-1), photo)
