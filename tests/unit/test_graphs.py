"""Contracts and manifests of graphs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fgfast import graphs
from fgfast.backends.manifest import Manifest
from fgfast.errors import GraphError
from fgfast.graphs import Contract

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
        files={"sam_mask_decoder.onnx": "00" * 32},
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


def reworded(contract: Contract) -> Contract:
    """The contract with other prose and other rows of tolerances."""
    inputs, outputs = (
        tuple(replace(port, meaning="reworded", kind="another row") for port in ports)
        for ports in (contract.inputs, contract.outputs)
    )
    return replace(contract, inputs=inputs, outputs=outputs)


def test_contracts_are_compared_by_what_a_file_must_have() -> None:
    assert reworded(DECODER) == DECODER
    assert hash(reworded(DECODER)) == hash(DECODER)
    assert graphs.sam_mask_decoder(128) != DECODER
    assert replace(DECODER, version=2) != DECODER
    for change in ({"name": "other"}, {"dtype": "float16"}, {"shape": ("pairs", 5)}):
        *others, last = DECODER.inputs
        assert replace(DECODER, inputs=(*others, replace(last, **change))) != DECODER


def test_rewording_changes_nothing_on_disk(tmp_path: Path) -> None:
    """Neither the bytes of a manifest nor whether it may be used."""
    manifest().write(tmp_path / "m.json")
    replace(manifest(), contract=reworded(DECODER)).write(tmp_path / "reworded.json")
    assert (tmp_path / "reworded.json").read_bytes() == (tmp_path / "m.json").read_bytes()
    read = Manifest.read(tmp_path / "reworded.json")
    assert not read.outdated
    assert [port.meaning for port in read.contract.inputs] == [port.meaning for port in DECODER.inputs]


@pytest.mark.parametrize("make", graphs.GRAPHS.values())
def test_a_manifest_rebuilds_its_contract(make: Callable[..., Contract], tmp_path: Path) -> None:
    contract = make((128, 192), batch=2) if make.__name__.startswith(("detic", "grounding")) else make(128)
    replace(manifest(), contract=contract).write(tmp_path / "m.json")
    read = Manifest.read(tmp_path / "m.json")
    assert read.contract == contract
    assert read.contract.arguments == contract.arguments
    assert not read.outdated


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": 0}, "was exported for version 0 of sam_mask_decoder's contract, which now has 1"),
        ({"arguments": {"side": 512, "masks": 1}}, "was exported with other inputs or outputs"),
        ({"arguments": {"sides": 256}}, r"was exported with arguments that sam_mask_decoder's contract does not take"),
        ({"graph": "sam_text_decoder"}, "holds a graph 'sam_text_decoder', which this fgfast does not have"),
    ],
)
def test_what_was_exported_for_another_contract_is_outdated(tmp_path: Path, change: dict, reason: str) -> None:
    facts = json.loads(manifest().to_json())
    facts["contract"] |= change
    (tmp_path / "m.json").write_text(json.dumps(facts))
    assert re.match(reason, Manifest.read(tmp_path / "m.json").outdated)


def test_a_manifest_of_an_older_fgfast_is_outdated(tmp_path: Path) -> None:
    """One with prose and without the constructor's arguments."""
    facts = json.loads(manifest().to_json())
    del facts["contract"]["arguments"]
    for port in (*facts["contract"]["inputs"], *facts["contract"]["outputs"]):
        port |= {"meaning": "prose", "kind": "low_res"}
    (tmp_path / "m.json").write_text(json.dumps(facts))
    assert "was exported by an older fgfast" in Manifest.read(tmp_path / "m.json").outdated
