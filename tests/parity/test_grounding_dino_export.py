"""Grounding DINO's exported graph in ONNX Runtime on the CPU against transformers' own network."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fgfast.studies import torchvision_shim

pytest.importorskip("transformers")
pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")
from parity.in_slots import alone

from fgfast import graphs
from fgfast.backends.onnxruntime import OnnxRuntimeSession
from fgfast.backends.session import zeros
from fgfast.backends.torch import TorchSession
from fgfast.errors import GraphError, ParityError, UsageError
from fgfast.export import grounding_dino as exporting
from fgfast.export import grounding_dino_check, make
from fgfast.export.trace import trace
from fgfast.methods import ModelSpec, Precision
from fgfast.models.grounding_dino import sessions, small
from fgfast.models.grounding_dino.canvas import CanvasGraph
from fgfast.models.grounding_dino.graph import ImageGraph
from fgfast.models.grounding_dino.sessions import build
from fgfast.models.serving import backend
from fgfast.records import Detections, Image
from fgfast.tolerances import DETIC_FP32

torchvision_shim.declare()

MODEL, WEIGHTS = "grounding_dino_tiny", "random:0"
PHRASES = ("Bird", "red car", "dog")
# Every image of the small model fits on it; it is larger than any of them, so that all are padded.
CANVAS = (224, 256)
# (height, width) in pixels after resizing: landscape, portrait, odd, and thinner than SMALLEST_SIDE.
SIZES = ((128, 170), (224, 128), (101, 133), (33, 200), (201, 12))
# Scores and pixels of images of up to 240 pixels: the fp32 rows, which are of logits and of parts of 1.
SCORE_TOLERANCE, PIXEL_TOLERANCE = 1e-4, 0.02


@pytest.fixture(scope="module")
def network() -> Any:
    return small.network(0).requires_grad_(False).eval()


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    ids: torch.Tensor = small.tokenizer()("bird . red car . dog .", return_tensors="pt")["input_ids"]
    return ids


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder with the small model's graph for two images at a time, written and checked as
    `fgfast export` does it."""
    folder = tmp_path_factory.mktemp("cache")
    make.export(
        ModelSpec(MODEL, WEIGHTS, batch=2), canvases=[CANVAS], out=folder / "graphs", on_message=lambda line: None
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FGFAST_CACHE", str(folder))
        yield folder


def make_image(height: int, width: int, seed: int = 0) -> Image:
    blocks = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    return Image(np.ascontiguousarray(blocks.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]))


def on_noise(size: tuple[int, int], canvas: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """An image on a canvas full of noise."""
    generator = torch.Generator().manual_seed(size[0])
    pixels = torch.randint(0, 256, (1, *canvas, 3), dtype=torch.uint8, generator=generator)
    return pixels, torch.tensor([size])


@pytest.mark.parametrize("size", SIZES)
@torch.inference_mode()
def test_a_canvas_changes_nothing(network: Any, tokens: torch.Tensor, size: tuple[int, int]) -> None:
    """And padding as transformers does it changes everything: why the graph is not transformers' forward."""
    pixels, sizes = on_noise(size, CANVAS)
    alone = ImageGraph(network)(pixels[:, : size[0], : size[1]], sizes, tokens)
    ours = CanvasGraph(network, CANVAS)(pixels, sizes, tokens)
    for kind, ours_of, theirs_of in zip(("stages", "scores"), ours, alone, strict=False):
        DETIC_FP32[kind].check((ours_of - theirs_of).flatten().double().numpy(), kind)
    _, boxes, _ = ImageGraph(network)(pixels, sizes, tokens)
    assert (boxes - alone[1]).abs().max() > 1000 * DETIC_FP32["scores"].largest


@torch.inference_mode()
def test_padding_of_the_prompt_changes_nothing(network: Any, tokens: torch.Tensor) -> None:
    pixels, sizes = on_noise(SIZES[0], CANVAS)
    padded = torch.nn.functional.pad(tokens, (0, 6))
    for graph in (ImageGraph(network), CanvasGraph(network, CANVAS)):
        short, long = (graph(pixels, sizes, prompt) for prompt in (tokens, padded))
        assert torch.isneginf(long[0][..., tokens.shape[1] :]).all()
        torch.testing.assert_close(long[0][..., : tokens.shape[1]], short[0], atol=1e-4, rtol=0)
        torch.testing.assert_close(long[1], short[1], atol=1e-5, rtol=0)


@pytest.mark.full
def test_detections_are_those_of_pytorch(cache: Path) -> None:
    """The check of the export itself is part of the fixture. Here: images of many sizes, as sets of detections."""
    images = [
        make_image(90, 120, 1),
        make_image(200, 120, 2),
        make_image(180, 240, 3),
        make_image(9, 100, 4),
        make_image(12, 12, 5),
    ]
    there = build(ModelSpec(MODEL, WEIGHTS, backend="onnxruntime"), PHRASES, box_threshold=0.3)
    here = build(ModelSpec(MODEL, WEIGHTS, backend="torch"), PHRASES, box_threshold=0.3)
    for image in images:
        ours, theirs = alone(there, image), alone(here, image)
        assert len(theirs.scores) > 3
        assert_same_set(ours, theirs)


def assert_same_set(ours: Detections, theirs: Detections) -> None:
    """Each detection has a partner: the same phrase, score and box."""
    assert len(ours.scores) == len(theirs.scores)
    left = list(range(len(ours.scores)))
    for n, label in enumerate(theirs.labels):
        near = [
            m
            for m in left
            if ours.labels[m] == label
            and abs(ours.scores[m] - theirs.scores[n]) < SCORE_TOLERANCE
            and np.abs(ours.boxes[m] - theirs.boxes[n]).max() < PIXEL_TOLERANCE
        ]
        assert near, f"{label} {theirs.scores[n]} {theirs.boxes[n]} has no partner"
        left.remove(near[0])


@pytest.mark.full
def test_the_backend_is_chosen(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fgfast.models.serving import speed

    assert backend.choose_backend([ModelSpec(MODEL, WEIGHTS, "fp32")], "onnxruntime") == ("onnxruntime", "as requested")
    monkeypatch.setattr(speed, "seconds_of", lambda session: {"torch": 2.0, "onnxruntime": 1.0}[session.backend])
    assert backend.choose_backend([ModelSpec(MODEL, WEIGHTS, "fp32")], "auto")[0] == "onnxruntime"
    with pytest.raises(UsageError, match="fgfast export grounding_dino_tiny --precision fp16"):
        backend.choose_backend([ModelSpec(MODEL, WEIGHTS, "fp16")], "onnxruntime")
    session = sessions.canvases(ModelSpec(MODEL, WEIGHTS, backend="onnxruntime")).session(CANVAS, 1)
    session.run(zeros(session.contract, {"text": 5}, session.device))


@pytest.mark.full
def test_canvases_that_do_not_hold_every_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    processor = small.image_processor()
    processor.size = {"shortest_edge": 128, "longest_edge": 300}
    monkeypatch.setattr(small, "image_processor", lambda: processor)
    with pytest.raises(UsageError, match=r"fgfast export grounding_dino_tiny --precision fp32 --canvas 128x320"):
        sessions.canvases(ModelSpec(MODEL, WEIGHTS, backend="onnxruntime"))


def test_what_cannot_be_exported_is_refused(network: Any) -> None:
    with pytest.raises(GraphError, match="multiples of 32, not 96x128"):
        CanvasGraph(network, (96, 128))
    for name, value, message in (("num_feature_levels", 3, "four levels"), ("num_queries", 900, "340 cells for 900")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(network.config, name, value)
            with pytest.raises(GraphError, match=message):
                CanvasGraph(network, (128, 128))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision(network: Any, precision: Precision) -> None:
    """Within the half rows of transformers in float32, where both begin at the same cells."""
    part = exporting.part(network, (128, 224), precision=precision)
    run = TorchSession(part.graph, part.contract).run
    measured = part.compare(part.contract, run, run, part.cases(), part.tolerances)
    boxes = [record["largest"] for record in measured if record["output"] == "boxes"]
    assert 1e-6 < max(boxes) < 1e-3  # rounding the boxes themselves would cost 2e-3 (bf16)


def test_the_check_finds_what_is_wrong(network: Any) -> None:
    """A graph that begins at other cells, and one whose boxes are off."""
    part = exporting.part(network, (128, 128))
    right = TorchSession(part.graph, part.contract).run

    def spoilt(name: str, by: Any) -> Any:
        return lambda inputs: {n: by(x) if n == name else x for n, x in right(inputs).items()}

    cases = list(part.cases())[:1]
    compared = part.compare(part.contract, right, right, cases, DETIC_FP32)
    assert {record["output"] for record in compared} == {"cells", "logits", "boxes"}
    with pytest.raises(ParityError, match=r"cells.* is off by"):
        part.compare(part.contract, spoilt("cells", lambda x: x.flip(1)), right, cases, DETIC_FP32)
    with pytest.raises(ParityError, match="one of them twice"):
        part.compare(part.contract, spoilt("cells", lambda x: x * 0), right, cases, DETIC_FP32)
    with pytest.raises(ParityError, match="boxes is off by"):
        part.compare(part.contract, spoilt("boxes", lambda x: x + 1e-3), right, cases, DETIC_FP32)


def test_cells_are_renumbered() -> None:
    """On a canvas of 128 x 128 the first map has 16 x 16 cells, the second 8 x 8; of an image of 128 x 96, 16 x 12."""
    cells = torch.tensor([0, 11, 12, 16, 255, 256, 256 + 8])
    found = grounding_dino_check.renumbered(cells, (128, 128), (128, 96))
    assert found.tolist() == [0, 11, -1, 12, -1, 192, 192 + 6]


@pytest.mark.full
def test_the_sizes_of_the_tiny_model(tmp_path: Path) -> None:
    """At the sizes of grounding_dino_tiny with random weights: minutes, and 8 GB."""
    network = full_size_tiny()
    part = exporting.part(network, (800, 1344))
    start = time.perf_counter()
    path = tmp_path / "graph.onnx"
    trace(part.graph, part.contract, part.example, path)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"\nexported in {seconds:.0f} s, peak {peak:.1f} GB, graph {path.stat().st_size / 1e6:.1f} MB")
    session = OnnxRuntimeSession(path, part.contract)
    for record in part.compare(part.contract, session.run, session.run, part.cases(), part.tolerances):
        print(record)
    assert part.contract == graphs.grounding_dino((800, 1344))


def full_size_tiny() -> Any:
    """grounding_dino_tiny's architecture; where transformers begins with constants, noise, so that they are tested."""
    from transformers import GroundingDinoConfig, GroundingDinoForObjectDetection, SwinConfig

    swin = SwinConfig(embed_dim=96, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24], window_size=7, out_indices=[2, 3, 4])
    spread = {
        "bbox_embed": 0.02,
        "relative_position_bias_table": 0.5,
        "sampling_offsets.weight": 0.05,
        "attention_weights.weight": 0.05,
        "vision_param": 0.3,
        "text_param": 0.3,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = GroundingDinoForObjectDetection(GroundingDinoConfig(backbone_config=swin))
        for name, weight in network.named_parameters():
            for part, deviation in spread.items():
                if part in name:
                    torch.nn.init.normal_(weight, std=deviation)
    return network.requires_grad_(False).eval()
