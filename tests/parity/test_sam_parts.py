"""Parts of SAM alone: geometry against stored arrays, both ways of attention, export, and the installed reference."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from parity.golden import FULL, PORTABLE, Golden, resize
from parity.in_slots import alone
from torch import Tensor

from fgfast import ops
from fgfast.errors import UnknownNameError
from fgfast.methods import ModelSpec, Precision
from fgfast.models.sam import attention, sessions, transform
from fgfast.models.sam.architecture import architecture
from fgfast.models.sam.build import build_sam
from fgfast.models.sam.graph import MaskDecoderGraph, PromptDecoderGraph
from fgfast.models.sam.model import Sam
from fgfast.models.sam.sessions import sam_in_torch
from fgfast.records import Image
from fgfast.tolerances import SAM_FP32

OPS = Golden(FULL, "ops")
TINY = Golden(PORTABLE, "sam_tiny256")


def test_resized_size() -> None:
    stored = OPS.arrays
    ours = [transform.resized_size(int(h), int(w), 1024) for h, w in stored["sizes"]]
    assert ours == [tuple(size) for size in stored["resize_longest/1024"]]


def test_scale_boxes() -> None:
    stored = OPS.arrays
    ours = transform.scale_boxes(stored["resize_longest/boxes_in_333x500"], 333, 500, 1024)
    np.testing.assert_array_equal(ours, stored["resize_longest/boxes_out"])


@pytest.mark.parametrize(("name", "side"), [("sam_longest_96", 96), ("61x88", 88), ("20x29", 29)])
def test_resize(name: str, side: int) -> None:
    np.testing.assert_array_equal(resize(OPS.arrays["pil/input"], side), OPS.arrays[f"pil/{name}"])


@pytest.mark.parametrize("shape", ["landscape", "portrait", "square"])
def test_to_stored_size(shape: str) -> None:
    stored = OPS.arrays
    low_res = 4 * OPS.draw("ops.sam.low_res", 2, 1, 64, 64)
    height, width = stored[f"sam_post/{shape}/original_size"].tolist()
    assert transform.resized_size(height, width, 256) == tuple(stored[f"sam_post/{shape}/input_size"])
    logits = transform.to_stored_size(low_res, height, width, 256)
    OPS.check(f"sam_post/{shape}/logits", logits[:1], SAM_FP32["logits"])
    OPS.check(f"sam_post/{shape}/stability", transform.stability(logits), SAM_FP32["stability"])
    OPS.check("sam_post/stability_low_res", transform.stability(low_res), SAM_FP32["stability"])


@pytest.mark.parametrize("way", [attention.folded, attention.masked])
@pytest.mark.parametrize("piece", [1, 1 << 12, 1 << 21])
def test_attention(way: Any, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the definition; pieces that do not divide what they are taken from."""
    monkeypatch.setattr(attention, "_PIECE", piece)
    torch.manual_seed(0)
    side, size = 7, 20
    q, k, v = torch.randn(3, 5, 3, side * side, size)
    h, w = torch.randn(2, 2 * side - 1, size)
    difference = way(q, k, v, h, w) - by_definition(q, k, v, h, w)
    SAM_FP32["features"].check(difference.double().numpy().reshape(-1), way.__name__)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_native_attention(precision: Precision, monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder gives the same with the engine's attention and with PyTorch's: whole image, windows, padding."""
    if not ops.attends(16, precision == "bf16"):
        pytest.skip(f"no native attention in {precision}: no fgfast._native, processor without it, or no OpenMP")
    model = Sam.build("tiny256", TINY.weights(), precision)
    pixels = TINY.draw("pixels", 2, 3, 256, 256)
    native = model.image_encoder(pixels)
    # Elsewhere the golden arrays are what this is compared with.
    monkeypatch.setattr(ops, "attends", lambda size, bf16=False: False)
    other = model.image_encoder(pixels)
    assert (native - other).any(), "the native attention was not used"
    if precision == "fp32":
        SAM_FP32["features"].check((native - other).double().numpy().reshape(-1), "encoder")
        return
    full = Sam.build("tiny256", TINY.weights()).image_encoder(pixels)
    off, before = ((found - full).abs().mean() for found in (native, other))
    assert off <= 1.05 * before, "further from float32 than PyTorch's attention"


@pytest.mark.parametrize(("by", "words"), [("AMX", "the engine's, by AMX"), ("", "PyTorch's")])
def test_what_attends_on_a_cpu_is_said(by: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "bf16_attends_by", lambda: by)
    spec = ModelSpec("sam_vit_b", "random:1", "bf16", "cpu")
    assert sessions.variant(spec) == words  # part of the key of what is measured
    assert sessions.variant(replace(spec, precision="fp32")) == ""
    said: list[str] = []
    monkeypatch.setattr(sessions.chosen, "say", said.append)
    monkeypatch.setattr(sessions, "form_of", lambda spec: "eager")
    monkeypatch.setattr(sessions, "build_sam", lambda spec: Sam.build("tiny256", TINY.weights(), "bf16"))
    sessions.segmenter(spec)
    assert said == [f"SAM's attention in bf16 is {words}"]


def by_definition(q: Tensor, k: Tensor, v: Tensor, rel_pos_h: Tensor, rel_pos_w: Tensor) -> Tensor:
    size, side = q.shape[-1], math.isqrt(q.shape[-2])
    y, x = torch.arange(side * side) // side, torch.arange(side * side) % side
    by_row, by_column = rel_pos_h[y[:, None] - y + side - 1], rel_pos_w[x[:, None] - x + side - 1]
    bias = torch.einsum("ghqd,qkd->ghqk", q, by_row + by_column)
    return (q @ k.mT / math.sqrt(size) + bias).softmax(-1) @ v


def test_boxes_share_embeddings() -> None:
    """Boxes of several images in any order give what each gives alone."""
    model = Sam.build("tiny256", TINY.weights())
    embeddings = torch.stack([TINY.draw(f"embedding{n}", 256, 16, 16) for n in range(2)])
    boxes = torch.tensor([[10.0, 20, 200, 180], [5, 5, 60, 70], [100, 90, 250, 240]])
    index = torch.tensor([1, 0, 1])
    decode = MaskDecoderGraph(model, multimask=True)
    logits, iou, _ = decode(embeddings, index, boxes)
    for n, image in enumerate(index.tolist()):
        single = decode(embeddings[image][None], torch.zeros(1, dtype=torch.long), boxes[n : n + 1])
        SAM_FP32["low_res"].check((logits[n] - single[0][0]).double().numpy().reshape(-1), "logits")
        SAM_FP32["iou"].check((iou[n] - single[1][0]).double().numpy(), "iou")


def test_exports() -> None:
    """Both halves trace without data-dependent control flow, and the traced graphs give the same."""
    model = Sam.build("tiny256", TINY.weights())
    pixels = TINY.draw("pixels", 2, 3, 256, 256)
    encoder = torch.export.export(model.image_encoder, (pixels,)).module()
    embeddings = model.image_encoder(pixels)
    difference = encoder(pixels) - embeddings
    SAM_FP32["features"].check(difference.double().numpy().reshape(-1), "encoder")

    prompts, index = model.prompt_encoder, torch.tensor([1, 0, 1])
    tokens = prompts(torch.tensor([[10.0, 20, 200, 180]] * 3))
    inputs = (embeddings, index, tokens, prompts.dense_pe, prompts.no_mask)
    decoder = torch.export.export(model.mask_decoder, inputs).module()
    for ours, traced in zip(model.mask_decoder(*inputs), decoder(*inputs), strict=True):
        SAM_FP32["low_res"].check((ours - traced).double().numpy().reshape(-1), "decoder")


@pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h", "tiny1024"])
def test_keys_and_shapes(name: str) -> None:
    """The official checkpoint's keys and shapes load strictly: compared without memory for the weights."""
    import json

    path = FULL / f"sam_{name}_manifest.json"
    if not path.exists():
        pytest.skip(f"no {path}")
    manifest = {key: tuple(e["shape"]) for key, e in json.loads(path.read_text())["keys"].items()}
    with torch.device("meta"):
        ours = {key: tuple(tensor.shape) for key, tensor in Sam(name).state_dict().items()}
    assert ours == manifest


def test_refusals() -> None:
    with pytest.raises(UnknownNameError, match="vit_b"):
        Sam.build("vit_x", {})
    with pytest.raises(UnknownNameError, match="bf16"):
        build_sam(ModelSpec("sam_tiny256", "random:0", "bf17"))  # type: ignore[arg-type]
    weights = TINY.weights()
    weights.pop("mask_decoder.iou_token.weight")
    with pytest.raises(RuntimeError, match="iou_token"):
        Sam.build("tiny256", weights)


def test_against_segment_anything() -> None:
    """The installed reference, built by its own classes, on an image and boxes that no fixture has."""
    from fgfast.studies import torchvision_shim

    torchvision_shim.declare()
    predictor = pytest.importorskip("segment_anything.predictor")
    reference = tiny_reference()
    weights = TINY.weights()
    reference.load_state_dict(weights)
    generator = np.random.default_rng(3)
    pixels = generator.integers(0, 256, (93, 131, 3), np.uint8)
    boxes = np.array([[3, 4, 80, 70], [50.5, 20.25, 131, 93]], np.float32)
    theirs = predictor.SamPredictor(reference.eval())
    theirs.set_image(pixels)
    ours = sam_in_torch(Sam.build("tiny256", weights), multimask=True)
    for box in boxes:
        masks, iou, _ = theirs.predict(box=box, multimask_output=True)
        found = alone(ours, Image(pixels), box)
        size = transform.resized_size(*pixels.shape[:2], 256)
        full = ops.mask_post(found.logits[None], pixels.shape[:2], size, 256)
        assert (full.bits[0] != masks).mean() <= 1e-4
        SAM_FP32["iou"].check((found.quality - iou).astype(np.float64), "iou")


def tiny_reference() -> Any:
    from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, TwoWayTransformer
    from segment_anything.modeling import Sam as Reference

    sizes = architecture("tiny256")
    encoder = ImageEncoderViT(
        img_size=sizes.side,
        embed_dim=sizes.width,
        depth=sizes.depth,
        num_heads=sizes.heads,
        norm_layer=functools.partial(torch.nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=14,
        global_attn_indexes=sizes.global_blocks,
        out_chans=256,
    )
    prompts = PromptEncoder(256, (sizes.grid, sizes.grid), (sizes.side, sizes.side), mask_in_chans=16)
    transformer = TwoWayTransformer(depth=2, embedding_dim=256, num_heads=8, mlp_dim=2048)
    return Reference(encoder, prompts, MaskDecoder(transformer_dim=256, transformer=transformer))


_POINTS = np.array([[20.5, 30.0], [100, 60], [64.25, 90]], np.float32)
_BOX = np.array([3.0, 4, 80.5, 70], np.float32)


@pytest.mark.parametrize("multimask", [False, True])
@pytest.mark.parametrize("previous", [False, True])
@pytest.mark.parametrize(
    ("count", "box"), [(0, True), (1, False), (3, False), (3, True)], ids=["box", "point", "points", "both"]
)
def test_prompts_against_segment_anything(count: int, box: bool, previous: bool, multimask: bool) -> None:
    """Boxes, points, both, with and without an earlier mask: PyPI's predictor gives what sam_prompt_decoder gives."""
    from fgfast.studies import torchvision_shim

    torchvision_shim.declare()
    theirs, embedding = reference_on_an_image()
    points, labels = (_POINTS[:count], np.array([1, 0, 1])[:count]) if count else (None, None)
    earlier = TINY.draw("low_res", 1, 64, 64).numpy() * 4 if previous else None
    low_res, iou = theirs.predict(points, labels, _BOX if box else None, earlier, multimask)[2:0:-1]

    def resized(places: Any) -> Any:
        return theirs.transform.apply_coords(places.reshape(-1, 2).copy(), (93, 131))

    given = [resized(_POINTS[:count]), *([resized(_BOX)] if box else [np.zeros((1, 2))])]
    kinds = [*([1, 0, 1][:count]), *([2, 3] if box else [4])]
    logits, quality, stability = PromptDecoderGraph(Sam.build("tiny256", TINY.weights()))(
        embedding,
        torch.zeros(1, dtype=torch.long),
        torch.from_numpy(np.concatenate(given).astype(np.float32))[None],
        torch.tensor([kinds]),
        torch.full((1, 64, 64), torch.nan) if earlier is None else torch.from_numpy(earlier),
        torch.tensor([float(previous)]),
    )
    chosen = slice(1, 4) if multimask else slice(0, 1)
    difference = logits[0, chosen].numpy() - low_res
    SAM_FP32["low_res"].check(difference.astype(np.float64).reshape(-1), "logits")
    SAM_FP32["iou"].check((quality[0, chosen].numpy() - iou).astype(np.float64), "iou")
    SAM_FP32["stability"].check(
        (stability[0, chosen] - transform.stability(torch.from_numpy(low_res))).double().numpy(), "stability"
    )


@functools.cache
def reference_on_an_image() -> tuple[Any, Tensor]:
    predictor = pytest.importorskip("segment_anything.predictor")
    reference = tiny_reference()
    reference.load_state_dict(TINY.weights())
    theirs = predictor.SamPredictor(reference.eval())
    theirs.set_image(np.random.default_rng(3).integers(0, 256, (93, 131, 3), np.uint8))
    return theirs, theirs.get_image_embedding()


def test_a_box_is_the_same_prompt_for_both_decoders() -> None:
    model = Sam.build("tiny256", TINY.weights())
    embeddings, index = TINY.draw("embedding0", 1, 256, 16, 16), torch.zeros(1, dtype=torch.long)
    box = torch.tensor([[10.0, 20, 200, 180]])
    for multimask, chosen in ((False, slice(0, 1)), (True, slice(1, 4))):
        old = MaskDecoderGraph(model, multimask)(embeddings, index, box)
        new = PromptDecoderGraph(model)(
            embeddings, index, box.view(1, 2, 2), torch.tensor([[2, 3]]), torch.zeros(1, 64, 64), torch.zeros(1)
        )
        SAM_FP32["low_res"].check((old[0] - new[0][:, chosen]).double().numpy().reshape(-1), "logits")
        SAM_FP32["iou"].check((old[1] - new[1][:, chosen]).double().numpy().reshape(-1), "iou")
