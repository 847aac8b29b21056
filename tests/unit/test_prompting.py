"""SAM for a person at a page: clicks to masks at full size, and embeddings made ahead. The weights are random."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="models need the extra models")

import torch

from fgfast.errors import ImageRefusedError, SampleError, SegmenterLostError, SupersededError, UsageError
from fgfast.methods import ModelSpec
from fgfast.models.prompts import Prompts
from fgfast.models.sam import prompting
from fgfast.models.sam.build import build_sam
from fgfast.models.sam.graph import ImageEncoderGraph
from fgfast.records import Bool, Image, UInt8
from fgfast.review import embeddings
from fgfast.review.embeddings import Embeddings
from fgfast.review.newest import Newest
from fgfast.review.segmenting import Segmenting

SPEC = ModelSpec("sam_tiny256", "random:0")
EMBEDDING = 2 * 256 * 16 * 16


def drawn(height: int = 60, width: int = 90, seed: int = 0) -> Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), np.uint8)
    pixels = coarse[np.arange(height)[:, None] * 6 // height, np.arange(width) * 9 // width]
    return Image(np.ascontiguousarray(pixels))


def never() -> Image:
    raise AssertionError("the image is not needed")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """More threads wait for each other in turns as soon as other tests run beside this one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Here:
    """In place of the encoder's process: what it would compute, computed here."""

    def __init__(self, *_: object) -> None:
        pass

    def call(self, function: str, spec: ModelSpec, images: list[UInt8], seconds: float) -> list[bytes | None]:
        return prompting.embed_all(spec, images)

    def close(self) -> None:
        pass


def decoded(
    embedding: bytes, size: tuple[int, int], prompts: Prompts, previous: bytes | None = None, banner_rows: int = 0
) -> tuple[list[Bool], list[float], bytes]:
    found = prompting.masks(SPEC, 0, size, prompts, previous, banner_rows, embedding)
    assert found is not None
    return found


def logits_of(embedding: torch.Tensor, size: tuple[int, int], prompts: Prompts) -> torch.Tensor:
    session = prompting._session(SPEC, False)
    with torch.inference_mode():
        return session.run({"embeddings": embedding} | prompting._inputs(256, size, prompts, None))["logits"]


def test_float16_of_an_embedding_hardly_moves_the_logits() -> None:
    """On random weights, by at most 0.0006 of the logits' standard deviation, measured; 0.002 are allowed."""
    model = build_sam(SPEC)
    worst = 0.0
    for seed in range(3):
        image = drawn(seed=seed)
        square, fitted = prompting._square(SPEC, image.pixels)
        with torch.inference_mode():
            exact = ImageEncoderGraph(model)(torch.from_numpy(square)[None], torch.tensor([fitted]))
        data = np.frombuffer(prompting.embed(SPEC, image.pixels), np.float16).reshape(exact.shape)
        half = torch.from_numpy(data.astype(np.float32))
        assert (half - exact).abs().max() <= 2**-11 * exact.abs().max()
        for prompts in (Prompts.of(image.size, points=[(40, 30, 1)]), Prompts.of(image.size, (10, 10, 70, 50))):
            one, other = (logits_of(x, image.size, prompts) for x in (exact, half))
            worst = max(worst, float((one - other).abs().max() / one.std()))
    assert worst < 0.002


def test_the_decoder_keeps_the_last_embeddings() -> None:
    image = drawn()
    embedding, point = prompting.embed(SPEC, image.pixels), Prompts.of(image.size, points=[(40, 30, 1)])
    assert prompting.masks(SPEC, 100, image.size, point) is None, "never given"
    first = prompting.masks(SPEC, 100, image.size, point, None, 0, embedding)
    again = prompting.masks(SPEC, 100, image.size, point)
    assert first is not None and again is not None and first[1] == again[1] and first[2] == again[2]
    for number in range(101, 101 + prompting._KEPT):
        prompting.masks(SPEC, number, image.size, point, None, 0, embedding)
    assert prompting.masks(SPEC, 100, image.size, point) is None, "given up for later ones"


def test_images_together_are_embedded_like_each_alone() -> None:
    images = [drawn(seed=n, width=80 + 10 * n).pixels for n in range(3)]
    slim = np.zeros((1, 3000, 3), np.uint8)
    found = prompting.embed_all(SPEC, [images[0], slim, *images[1:]])
    assert found == [prompting.embed(SPEC, images[0]), None, *(prompting.embed(SPEC, one) for one in images[1:])]


@pytest.fixture(scope="module")
def model() -> Iterator[Segmenting]:
    with Segmenting(SPEC, "for tests") as started:
        yield started


def test_clicks_are_decoded_from_an_embedding() -> None:
    image = drawn()
    embedding = prompting.embed(SPEC, image.pixels)
    assert len(embedding) == EMBEDDING
    point = Prompts.of(image.size, points=[(40, 30, 1)])
    found, scores, previous = decoded(embedding, image.size, point)
    assert len(found) == len(scores) == 4 and all(bits.shape == (60, 90) for bits in found)
    assert scores[:3] == sorted(scores[:3], reverse=True) and len(previous) == 2 * 64 * 64
    box = Prompts.of(image.size, box=(10, 10, 70, 50), points=[(40, 30, 1)])
    other, others, _ = decoded(embedding, image.size, box, previous)
    assert others[1:] == sorted(others[1:], reverse=True)
    without = decoded(embedding, image.size, box)
    assert without[1] != others, "the earlier mask has no effect"
    again = decoded(embedding, image.size, box, previous)
    assert again[1] == others and all(np.array_equal(a, b) for a, b in zip(again[0], other, strict=True))


def test_a_box_alone_gives_the_mask_of_a_run() -> None:
    """The single mask of the review is that of `fgfast convert`, but for an embedding in float16."""
    from parity.in_slots import alone

    from fgfast.models.sam.sessions import sam_in_torch

    image, box = drawn(), np.array([12, 9, 71, 52], np.float32)
    segmenter = sam_in_torch(build_sam(SPEC))
    theirs = segmenter.finish(alone(segmenter, image, box), 60, 90)
    ours, scores, _ = decoded(prompting.embed(SPEC, image.pixels), image.size, Prompts.of(image.size, box))
    assert (ours[0] != theirs.bits).mean() < 0.01 and abs(scores[0] - theirs.quality) < 1e-2


def test_the_banner_is_never_subject() -> None:
    image = drawn()
    embedding, point = prompting.embed(SPEC, image.pixels), Prompts.of(image.size, points=[(40, 30, 1), (1, 1, 0)])
    found, _, _ = decoded(embedding, image.size, point, banner_rows=25)
    assert not any(bits[-25:].any() for bits in found)


@pytest.mark.parametrize("size", [(1, 1), (1, 3), (7, 100)])
def test_tiny_images(size: tuple[int, int]) -> None:
    pixels = np.zeros((*size, 3), np.uint8)
    found = decoded(prompting.embed(SPEC, pixels), size, Prompts.of(size, points=[(0.5, 0.5, 1)]))
    assert found[0][0].shape == size


def test_an_image_too_slim_is_refused() -> None:
    with pytest.raises(ImageRefusedError):
        prompting.embed(SPEC, np.zeros((1, 3000, 3), np.uint8))


@pytest.mark.parametrize(
    "previous", ["?", base64.b64encode(b"12").decode(), base64.b64encode(b"\xff" * (2 * 64 * 64)).decode()]
)
def test_a_hostile_earlier_mask_is_refused(model: Segmenting, previous: str) -> None:
    with pytest.raises(UsageError, match="previous mask"):
        model.propose("a", drawn, points=[(3, 3, 1)], previous=previous)


@pytest.mark.parametrize(
    "asked", [{}, {"points": [(float("nan"), 3, 1)]}, {"points": [(3, 3, 1)] * 10_000}, {"points": [(3, 61, 1)]}]
)
def test_hostile_prompts_are_refused(model: Segmenting, asked: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        model.propose("a", drawn, **asked)


def test_a_click_in_processes_and_the_next_one(model: Segmenting) -> None:
    first = model.propose("a", drawn, points=[(40, 30, 1)])
    assert len(first.masks) == 4 and model.ready("a") and "embed" in model.can
    second = model.propose("a", never, points=[(40, 30, 1), (5, 5, 0)], previous=first.previous)
    assert second.scores != first.scores
    assert np.array_equal(model.propose("a", never, points=[(40, 30, 1)]).masks[0], first.masks[0])
    strokes = np.zeros((60, 90), np.bool_)
    strokes[30, 30:50] = True
    assert model.propose("a", drawn, strokes=(strokes, None)).masks[0][strokes].all(), "by GrabCut"


@pytest.mark.full
def test_the_decoders_death_costs_one_click_and_no_embedding(model: Segmenting) -> None:
    model.propose("b", drawn, points=[(40, 30, 1)])
    model._clicks._process._process.kill()
    model._clicks._process._process.wait(10)
    with pytest.raises(SegmenterLostError):
        model.propose("b", never, points=[(40, 30, 1)])
    assert len(model.propose("b", never, points=[(40, 30, 1)]).masks) == 4


def wait_for(happened: Any) -> None:
    end = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("encoder", ["fake", pytest.param("SAM", marks=pytest.mark.full)])
def test_embeddings_are_made_ahead_in_order_and_capped(encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if encoder == "fake":  # no PyTorch, whose import in two processes takes ten seconds
        monkeypatch.setattr(embeddings, "_LOAD", "fake_children:no_encoder")
        monkeypatch.setattr(embeddings, "_EMBED", "fake_children:no_embedding")
    made, release = [], threading.Event()

    def load(n: int) -> Image:
        made.append(n)
        assert release.wait(30)
        if n == 1:
            raise SampleError("x", "this image is broken")
        return drawn(seed=n)

    kept = Embeddings(SPEC, most_bytes=3 * EMBEDDING)
    try:
        kept.prepare([(f"old {n}", lambda n=n: load(10 + n)) for n in range(3)])
        wait_for(lambda: made)
        kept.prepare([(f"{n}", lambda n=n: load(n)) for n in range(4)])
        release.set()
        wait_for(lambda: "2" in kept)
        assert made == [10, 0, 1, 2], "in order, no more than are kept, without the rest of the earlier list"
        assert kept.bytes_kept == 3 * EMBEDDING and "old 0" in kept and "1" not in kept
        kept._process._process._process.kill()
        kept.prepare([("5", lambda: drawn(seed=5)), ("6", lambda: drawn(seed=6))])
        wait_for(lambda: "6" in kept)
        assert "old 0" not in kept and kept.bytes_kept == 3 * EMBEDDING
    finally:
        kept.close()
    assert "6" not in kept


def test_clicks_on_an_image_that_is_still_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A superseded one is told at once; the last one gets the embedding, before what is made ahead."""
    encoding, release, made = threading.Event(), threading.Event(), []

    def load(key: str) -> Image:
        made.append(key)
        encoding.set()
        assert release.wait(30)
        return drawn()

    monkeypatch.setattr(embeddings, "SegmenterProcess", Here)
    kept, results = Embeddings(SPEC), {}
    newest = Newest(kept.look)

    def click(n: int, key: str) -> None:
        try:
            with newest.call(key) as check:
                results[n] = kept.of(key, lambda: load(key), check).size
        except SupersededError:
            results[n] = "superseded"

    threads = []
    try:
        kept.prepare([(key, lambda key=key: load(key)) for key in ("ahead", "later")])
        assert encoding.wait(30)
        for n, key in ((1, "a"), (2, "b"), (3, "a")):
            threads.append(threading.Thread(target=click, args=(n, key)))
            threads[-1].start()
            wait_for(lambda n=n: kept._clicks >= min(n, 2))
        wait_for(lambda: results.get(1) == "superseded")
        assert made == ["ahead"], "it did not wait for the encoder"
        release.set()
        wait_for(lambda: "later" in kept)
    finally:
        release.set()
        for thread in threads:
            thread.join(30)
        kept.close()
    assert results == {1: "superseded", 2: (60, 90), 3: (60, 90)}
    assert made[0] == "ahead" and sorted(made[1:3]) == ["a", "b"] and made[3:] == ["later"]


def test_a_click_on_an_image_too_slim_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "SegmenterProcess", Here)
    kept = Embeddings(SPEC)
    try:
        for _ in range(2):  # the turn of the first one has ended
            with pytest.raises(ImageRefusedError, match="3000x1 pixels, too thin"):
                kept.of("slim", lambda: Image(np.zeros((1, 3000, 3), np.uint8)))
        assert kept.of("other", drawn).size == (60, 90)
    finally:
        kept.close()


def test_embeddings_made_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Image:
        raise SampleError("x", "this image is broken")

    monkeypatch.setattr(embeddings, "SegmenterProcess", Here)
    looked: list[int] = []
    kept = Embeddings(SPEC, most_bytes=6 * EMBEDDING)
    try:
        items = [(f"{n}", broken if n == 1 else lambda n=n: drawn(seed=n)) for n in range(9)]
        assert kept.make(items, lambda n: looked.append(n) is None) == 5 and looked == [4, 6], "no more than are kept"
        assert "0" in kept and "1" not in kept and "5" in kept and "6" not in kept
        assert kept.make([(f"more {n}", drawn) for n in range(6)], lambda n: False) == 4, "stopped"
    finally:
        kept.close()
