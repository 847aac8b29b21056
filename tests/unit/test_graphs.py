"""Contracts and manifests of graphs."""

from __future__ import annotations

from pathlib import Path

import pytest

from fgfast import graphs
from fgfast.errors import GraphError
from fgfast.graphs import Contract, Manifest

DECODER = graphs.sam_mask_decoder(256)


def given(
    images: int = 2, pairs: int = 3, **other: tuple[str, tuple[int, ...]]
) -> dict[str, tuple[str, tuple[int, ...]]]:
    shapes = {
        "embeddings": ("float32", (images, 256, 16, 16)),
        "image_index": ("int64", (pairs,)),
        "boxes": ("float32", (pairs, 4)),
    }
    return {**shapes, **other}


def test_free_sizes_are_read_off_the_inputs() -> None:
    assert DECODER.free == ("images", "pairs")
    assert DECODER.bind(given(5, 7)) == {"images": 5, "pairs": 7}
    assert graphs.detic_detector((800, 1216)).free == ("classes",)
    assert graphs.sam_image_encoder(1024, 4).free == ()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"boxes": ("float32", (4, 4))}, "boxes is float32 .4, 4., must be float32 .'pairs', 4., where .*'pairs': 3"),
        ({"boxes": ("float64", (3, 4))}, "boxes is float64"),
        ({"embeddings": ("float32", (2, 256, 16))}, "embeddings is float32"),
        ({"image_index": ("int32", (3,))}, "must be int64"),
        ({"more": ("int64", (3,))}, "takes .'boxes', 'embeddings', 'image_index'., not .*'more'"),
    ],
)
def test_other_inputs_are_refused_and_the_right_ones_named(wrong: dict, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        DECODER.bind(given(**wrong))


def test_the_levels_of_a_canvas() -> None:
    contract = graphs.detic_backbone((800, 1216), 1, 64, 1000, "bf16")
    shapes = {port.name: port.shape for port in contract.outputs}
    assert shapes["p3"] == (1, 64, 100, 152)
    assert shapes["p5"] == (1, 64, 25, 38)
    # 1000 of p3 and of p4 (50 x 76 cells), all of p5 (950), p6 (13 x 19) and p7 (7 x 10).
    assert shapes["candidates"] == (1, 1000 + 1000 + 950 + 247 + 70, 4)
    assert contract.outputs[0].dtype == "bfloat16"


@pytest.mark.parametrize("make", graphs.GRAPHS.values())
def test_every_output_has_a_row_of_tolerances(make) -> None:
    from fgfast import tolerances

    contract = make((64, 96)) if make.__name__.startswith(("detic", "grounding")) else make()
    table = tolerances.SAM_FP32 if contract.graph.startswith("sam") else tolerances.DETIC_FP32
    assert isinstance(contract, Contract)
    assert {port.kind for port in contract.outputs} <= table.keys()


def manifest() -> Manifest:
    return Manifest(
        contract=DECODER,
        model="sam_tiny256",
        weights="random:1",
        precision="fp32",
        opset=23,
        code={"fgfast": "0"},
        files={"sam_mask_decoder.onnx": "00"},
        tolerances={"logits": {"largest": 1e-4}},
        measured=[{"case": "one", "output": "logits", "largest": 1e-5, "rms": 1e-6}],
    )


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    manifest().write(tmp_path / "m.json")
    assert Manifest.read(tmp_path / "m.json") == manifest()


@pytest.mark.parametrize(
    "content", ["", "{}", "[1]", '{"contract": {}}', '{"contract": {"inputs": [{}], "outputs": []}}']
)
def test_what_is_no_manifest_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "m.json").write_text(content)
    with pytest.raises(GraphError, match=r"m\.json is not the manifest of a graph .*export the model again"):
        Manifest.read(tmp_path / "m.json")
