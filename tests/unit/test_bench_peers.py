"""Other engines beside fgfast in `fgfast bench models --peers`: which are measured, their graphs, their results."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="models need the extra models")

from fgfast import graphs  # noqa: E402
from fgfast.bench import models, openvino_pins, openvino_session, peers, rates  # noqa: E402
from fgfast.bench.peers import DETIC_PEERS, SAM_PEERS  # noqa: E402
from fgfast.bench.segmented import Segmented, logits_error  # noqa: E402
from fgfast.errors import GraphError, UsageError  # noqa: E402

# The residual sum 4 of a computed tensor and the input, the bias 5, a norm 6 with its scale 7 and offset 8, and the
# sum 9 that a softmax reads.
LAYERS = {
    0: ("Parameter", ()),
    1: ("Const", ()),
    2: ("Convert", (1,)),
    3: ("MatMul", (0, 2)),
    4: ("Add", (0, 3)),
    5: ("Add", (4, 2)),
    6: ("MVN", (5, 1)),
    7: ("Multiply", (6, 1)),
    8: ("Add", (7, 1)),
    9: ("Add", (8, 3)),
    10: ("Reshape", (9, 1)),
    11: ("SoftMax", (10,)),
}


def write(path: Path, layers: dict[int, tuple[str, tuple[int, ...]]]) -> Path:
    net = ElementTree.Element("net")
    all_layers, edges = ElementTree.SubElement(net, "layers"), ElementTree.SubElement(net, "edges")
    for number, (kind, inputs) in layers.items():
        layer = ElementTree.SubElement(all_layers, "layer", {"id": str(number), "type": kind})
        ElementTree.SubElement(layer, "data")
        port = ElementTree.SubElement(ElementTree.SubElement(layer, "output"), "port", {"precision": "FP32"})
        ElementTree.SubElement(port, "dim").text = "1"
        for source in inputs:
            ElementTree.SubElement(edges, "edge", {"from-layer": str(source), "to-layer": str(number)})
    path.write_bytes(ElementTree.tostring(net))
    return path


def marked(path: Path) -> set[int]:
    layers = ElementTree.parse(path).getroot().iterfind("layers/layer")
    return {int(layer.get("id", "")) for layer in layers if layer.find("rt_info/attribute") is not None}


def test_residual_sums_and_norms_are_pinned(tmp_path: Path) -> None:
    path = write(tmp_path / "plain.xml", LAYERS)
    assert openvino_pins.pin(path, tmp_path / "pinned.xml") == 4
    assert marked(tmp_path / "pinned.xml") == {4, 6, 7, 8}
    assert marked(path) == set()


def test_boxes_are_pinned_from_the_last_layer_of_their_prediction_on(tmp_path: Path) -> None:
    tower, last, hot, best, gather, pooled, hidden = range(12, 19)
    detector = {
        **LAYERS,
        tower: ("Convolution", (8, 2)),
        last: ("Convolution", (tower, 2)),
        hot: ("Sigmoid", (last,)),
        best: ("TopK", (hot, 1)),
        gather: ("GatherElements", (last, best)),
        pooled: ("MatMul", (gather, tower)),
        hidden: ("ReLU", (pooled,)),
    }
    openvino_pins.pin(write(tmp_path / "plain.xml", detector), tmp_path / "pinned.xml")
    assert marked(tmp_path / "pinned.xml") == {4, 6, 7, 8, last, hot, best, gather}


def test_a_graph_without_residual_sums_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "plain.xml", {n: LAYERS[n] for n in range(4)})
    with pytest.raises(GraphError, match=r"plain\.xml has no sum"):
        openvino_pins.pin(path, tmp_path / "pinned.xml")
    assert not (tmp_path / "pinned.xml").exists()


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which of all engines only transformers is installed."""
    found = importlib.util.find_spec
    absent = ("openvino", "onnxruntime", "onnx", "onnxscript", "segment_anything")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in absent else found(name))
    monkeypatch.setattr(peers, "_lacking", lambda peer: [p for p in (peer.package, *peer.needs) if p in absent])


def test_what_is_not_installed_is_left_out_and_named(bare: None) -> None:
    assert [peer.name for peer in peers.installed(SAM_PEERS)] == ["transformers fp32"]
    (note,) = peers.notes(SAM_PEERS)
    assert note.startswith("Not measured, for want of openvino, segment_anything, onnxruntime, onnx, onnxscript: Open")
    assert note.endswith('pip install ".[cpu,peers]" installs what is missing.')
    assert peers.installed(DETIC_PEERS) == []
    assert {product.engine for product in rates.products(True)} == {"PyTorch"}


def test_names_of_rows_are_unique_and_say_the_precision() -> None:
    for group in (SAM_PEERS, DETIC_PEERS):
        assert len({peer.name for peer in group}) == len(group)
        assert all(peer.precision in peer.name for peer in group)


def test_peers_are_for_the_cpu() -> None:
    with pytest.raises(UsageError, match="the device is cuda:1: add --device cpu"):
        models.measure_sam("tiny1024", rounds=1, device="cuda:1", with_peers=True)


def results(flipped: int, noise: float = 0.0) -> list[Segmented]:
    logits = np.linspace(-1, 1, 10_000, dtype=np.float32).reshape(100, 100)
    mask = logits > 0
    mask.flat[:flipped] = True
    return [Segmented(mask, logits + np.float32(noise))]


def test_a_peer_that_is_off_is_reported_and_fgfast_ends_the_measurement() -> None:
    found = {"segment-anything": results(0), "fgfast fp32": results(0), "OpenVINO fp32": results(900, 0.1)}
    agreement = models._compare(found, ["OpenVINO fp32"])
    assert agreement["fgfast fp32"]["within_tolerance"] and not agreement["OpenVINO fp32"]["within_tolerance"]
    assert agreement["OpenVINO fp32"]["logits_error"] == pytest.approx(0.1 / np.linspace(-1, 1, 10_000).std(), rel=1e-3)
    found["fgfast bf16"] = results(900)
    with pytest.raises(AssertionError, match="fgfast bf16"):
        models._compare(found)


def test_an_error_of_logits_is_relative_to_their_spread() -> None:
    exact = np.array([[-2.0, 2.0]], np.float32)
    assert logits_error(exact, exact) == 0
    assert logits_error(10 * exact + 1, 10 * exact) == pytest.approx(1 / 20)


class FakeProduct(rates.Product):
    def __init__(self, engine: str, precision: str, seconds: float) -> None:
        self.engine, self.precision, self.seconds = engine, precision, [2 * seconds, seconds]


def test_rows_of_a_comparison_with_peers() -> None:
    wanted = [peer for peer in SAM_PEERS if peer.name in ("OpenVINO fp32", "OpenVINO bf16")]
    seconds = {"segment-anything": [9.0, 8.0], "fgfast fp32": [4.0, 4.0], "fgfast bf16": [2.0, 1.0]}
    seconds |= {"OpenVINO fp32": [8.0, 6.0], "OpenVINO bf16": [3.0, 2.0]}
    measured = [FakeProduct(*case) for case in (("PyTorch", "fp32", 0.5), ("PyTorch", "bf16", 0.25))]
    rows = {row.key: row.value for row in rates.rows("sam_vit_b", seconds, wanted, measured)}
    assert rows["seconds per image, fastest turn: OpenVINO bf16"] == 2
    assert rows["faster than the peer: fgfast fp32 and OpenVINO fp32"] == 1.75
    assert rows["faster than the peer, fastest turns: fgfast bf16 and OpenVINO bf16"] == 2
    assert rows["matrix products, TFLOP/s, fastest: PyTorch bf16"] == pytest.approx(rates.FLOP / 0.25e12)
    share = rows["share of the best measured rate of products: fgfast bf16"]
    assert share == pytest.approx(2 * 487.8e9 / (rates.FLOP / 0.25), rel=1e-3)
    assert list(rates.rows("sam_vit_b", seconds, wanted, [])) == []


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("openvino", "segment_anything", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed; it comes with the extra peers")
    from fgfast.bench import sam_peers

    folder = tmp_path_factory.mktemp("peers")
    sam_peers.prepare(list(SAM_PEERS), "tiny1024", "random:1", folder)
    return folder


@pytest.mark.full
@pytest.mark.parametrize("peer", SAM_PEERS, ids=lambda peer: peer.name)
def test_a_peer_makes_the_masks_of_the_reference(peer: peers.Peer, prepared: Path) -> None:
    if importlib.util.find_spec(peer.package) is None:
        pytest.skip(f"{peer.package} is not installed")
    from fgfast.bench import sam_peers

    image = np.random.default_rng(0).integers(0, 256, (150, 200, 3), np.uint8)
    box = np.array([[30, 20, 170, 130]], np.float32)
    expected = models.reference("tiny1024", "random:1", "cpu")(image, box)
    found = sam_peers.load(peer, "tiny1024", "random:1", prepared)(image, box)
    assert logits_error(found.logits, expected.logits) < (1e-4 if peer.precision == "fp32" else 0.05)
    assert (found.mask != expected.mask).mean() < (1e-3 if peer.precision == "fp32" else 0.02)


@pytest.mark.full
def test_pinned_nodes_reduce_the_error_of_bf16(prepared: Path) -> None:
    contract = graphs.sam_image_encoder(1024, 1)
    pixels = np.random.default_rng(1).integers(0, 256, (1, 1024, 1024, 3), np.uint8)
    inputs = {"pixels": torch.from_numpy(pixels), "sizes": torch.tensor([[1024, 1024]])}

    def embed(file: str, precision: str) -> torch.Tensor:
        session = openvino_session.OpenVinoSession(prepared / file, contract, precision, 2)
        try:
            return session.run(inputs)["embeddings"]
        finally:
            session.close()

    exact = embed("own.onnx", "fp32")
    loose, pinned = ((embed(file, "bf16") - exact).square().mean() for file in ("own.onnx", "own-pinned.xml"))
    if not loose:
        pytest.skip("this CPU does not compute bf16")
    assert pinned < 0.8 * loose
