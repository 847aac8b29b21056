"""Rows, floors, gaps and the verdict, on runs made by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest

from fgfast import ops
from fgfast.bench import account, memory, reference, roofline, scaling, whole
from fgfast.bench.job import Job, Ran, null
from fgfast.bench.result import envelope
from fgfast.bench.roofline import Product, Roof
from fgfast.bench.scaling import Setting
from fgfast.errors import UsageError
from fgfast.records import Size
from fgfast.runner import Event

JOB = Job(segmenter="sam_vit_b", detector="detic")


def ran(events: list[Event], total: int, **more: Any) -> Ran:
    given: dict[str, Any] = {"seconds": 99.0, "peak_mib": 512.0, "gpu_mib": ()} | more
    report: Any = SimpleNamespace(total=total, seconds=50.0)
    return Ran(plan=SimpleNamespace(), messages=(), report=report, events=tuple(events), out=Path(), **given)  # type: ignore[arg-type]


def worker(name: str, start: float) -> list[Event]:
    """The events of ten images in five batches: per batch detect takes 1 s, encode 3.5 s, and write half a second."""
    events = []
    for n in range(5):
        at = start + 5 * n
        for stage, begin, end in (("detect", 0.0, 1.0), ("encode", 1.0, 4.5)):
            events.append(Event(stage, name, "device", at + begin, at + end, 2, n))
        events.append(Event("write", name, "pool-0", at + 4.5, at + 5, 2, 0))
    return events


ONE = ran(worker("cuda:0", 7.0), 10)
TWO = ran(worker("cuda:0", 0.0) + worker("cuda:1", 0.0), 20, gpu_mib=(100.0, 200.0))
# 1e12 multiply-accumulates a second.
ROOF = Roof("cuda:0", "bf16", (Product("slow", 1e12, 1.0), Product("qkv", 2e12, 100.0)), 1e10)


def test_end_to_end() -> None:
    rows = {row.name: row.value for row in account.end_to_end([ONE])}
    assert rows["rate"] == pytest.approx(10 / 25)
    assert rows["wall time per image"] == pytest.approx(2500)
    assert rows["rate once under way"] == pytest.approx(2 / 5)
    assert rows["start and end of the run"] == pytest.approx(99 - 25)
    assert rows["time outside the models' forward"] == pytest.approx(10)
    assert rows["the same, once under way"] == pytest.approx(100 * 2 / 24.5)
    assert rows["peak memory, all processes"] == 512
    assert {row.name: row.value for row in account.end_to_end([TWO])}["peak memory of GPU 1"] == 200


def test_without_events_the_report_gives_the_time() -> None:
    rows = {row.name: row.value for row in account.end_to_end([ran([], 100, peak_mib=0.0)])}
    assert rows["rate"] == pytest.approx(2.0)
    assert rows.keys() == {"rate", "wall time per image", "start and end of the run"}


def test_stages_and_devices() -> None:
    rows = {row.key: row.value for row in account.of_stages([ONE, ONE]) + account.of_devices([TWO])}
    assert rows["work per image: encode"] == pytest.approx(1750)
    assert rows["images at once: encode"] == 2
    assert rows["waiting for it, on average: detect"] == 2
    assert rows["device busy with models: cuda:1"] == pytest.approx(90)
    assert account.devices(TWO) == ["cuda:0", "cuda:1"]


def test_workers_of_one_device_are_one_device() -> None:
    assert account.devices(ran(worker("cpu", 0.0) + worker("cpu#2", 0.0), 20)) == ["cpu"]


def test_cost_against_the_floor() -> None:
    """A floor of gmac / 1e3 seconds."""
    detic, sam = account.spent(ONE, JOB, [ROOF], [(600, 816)])
    assert (detic.model, detic.ms, detic.batch) == ("detic", 500, 2)
    assert sam.ms == pytest.approx(1750)
    assert sam.floor_ms == pytest.approx(487.8)
    rows = {row.name: row.value for row in account.of_floor(ONE, [detic, sam], [ROOF])}
    assert rows["detic: forward / floor"] == pytest.approx(500 / detic.floor_ms)
    assert rows["all models: floor"] == pytest.approx(detic.floor_ms + 487.8)
    assert rows["wall time / floor"] == pytest.approx(2500 / rows["all models: floor"])


def test_two_devices_halve_the_floor() -> None:
    models = account.spent(TWO, JOB, [ROOF, ROOF], [(600, 816)])
    rows = {row.name: row.value for row in account.of_floor(TWO, models, [ROOF, ROOF])}
    assert rows["all models: floor"] == pytest.approx(sum(own.floor_ms for own in models) / 2)
    assert rows["wall time / floor"] == pytest.approx(1250 / rows["all models: floor"])


@pytest.mark.parametrize("run", [ONE, TWO])
def test_gaps_and_floors_make_up_the_device_time(run: Ran) -> None:
    models = account.spent(run, JOB, [ROOF], [(600, 816)])
    gaps = account.gaps(run, models)
    assert sum(gap.ms for gap in gaps) + sum(own.floor_ms for own in models) == pytest.approx(2500)
    assert gaps[0].where == "sam_vit_b's forward"
    assert {gap.where: gap.ms for gap in gaps}["devices that wait for the rest"] == pytest.approx(250)


def test_roofline() -> None:
    (point,) = account.roofline([account.Spent("detic", 500.0, 2.0, 340.0, 340.0)], [ROOF], {"detic": 1e8})["models"]
    assert point["intensity"] == pytest.approx(6800)
    assert point["flops"] == pytest.approx(1.36e12)


@pytest.mark.parametrize(
    ("model", "sizes", "gmac"),
    [
        ("sam_vit_b", [], 487.8),
        ("sam_vit_l", [(9, 9)], 1494.8),
        ("detic", [], 340.0),
        ("detic", [(800, 1088)], 340.0),
        ("detic", [(400, 544), (800, 1088)], 340.0),
        ("grabcut", [], 0.0),
    ],
)
def test_the_arithmetic_of_models(model: str, sizes: Any, gmac: float) -> None:
    assert roofline.gmac_of(model, sizes) == pytest.approx(gmac)


def test_detics_arithmetic_grows_with_its_canvas_and_ends_at_the_longest_edge() -> None:
    square, wide, widest = (roofline.gmac_of("detic", [size]) for size in [(500, 500), (500, 800), (100, 1000)])
    assert widest < square < wide


def test_a_roof_is_its_fastest_product() -> None:
    assert ROOF.flops == 2e12
    assert ROOF.ms(1000.0) == pytest.approx(1000.0)


def test_measuring_a_roof() -> None:
    pytest.importorskip("torch")
    roof = roofline.measure(["detic"], "cpu", "fp32", min_seconds=0.01)
    assert len(roof.products) == 4
    assert roof.flops == max(product.flops for product in roof.products) > 1e8
    assert roof.bandwidth > 1e7
    assert roof.products[0].intensity == pytest.approx(2 * 3400 * 512 * 512 / (4 * (2 * 3400 * 512 + 512 * 512)))


def job_result(seconds: float, **more: Any) -> dict[str, Any]:
    run = ran(worker("cpu", 0.0), 10)
    models = account.spent(run, JOB, [ROOF], [(600, 816)])
    rows = account.of_floor(run, models, [ROOF]) + account.end_to_end([run])
    result = envelope("pipeline", rows, title="", rounds=1, gaps=[gap._asdict() for gap in account.gaps(run, models)])
    for row in result["rows"]:
        if row["name"] == "wall time per image":
            row["value"] = 1e3 * seconds
    return result


@pytest.mark.parametrize(
    ("seconds", "kind", "name", "parts"),
    [
        (
            2.5,
            "cpu",
            "vit_b",
            ["2.5 s per image", "8.33 times the paper's 0.3 s", "could not reach", "a third of ViT-L's"],
        ),
        (0.01, "cuda", "vit_l", ["30 times as fast as the paper's 0.3 s", "two RTX 3090"]),
    ],
)
def test_the_verdict_is_honest(seconds: float, kind: str, name: str, parts: list[str]) -> None:
    sentences = " ".join(whole.verdict(job_result(seconds), kind, name))
    for part in [*parts, "The largest gap to it: sam_vit_b's forward"]:
        assert part in sentences, part
    assert ("processor" in sentences) == (kind == "cpu")


def test_settings_of_scaling() -> None:
    found = scaling.settings_of(["cpu", "cpu,cpu", "cpu"])
    assert [setting.title for setting in found] == ["cpu", "cpu,cpu replicate", "cpu,cpu split"]
    with pytest.raises(UsageError, match="'cpu,' must be names between commas"):
        scaling.settings_of(["cpu,"])


def test_efficiency_counts_a_device_once() -> None:
    one, two, twice = (Setting(d, "replicate") for d in [("cuda:0",), ("cuda:0", "cuda:1"), ("cuda:0", "cuda:0")])
    rates = {one: [10.0, 20.0], two: [19.0, 38.0], twice: [11.0, 22.0]}
    rows = {row.key: row.value for row in scaling.rows_of(rates, dict.fromkeys(rates, 90.0))}
    assert rows["cuda:0,cuda:1 replicate: against cuda:0"] == pytest.approx(1.9)
    assert rows["cuda:0,cuda:1 replicate: efficiency"] == pytest.approx(95)
    assert rows["cuda:0,cuda:0 replicate: efficiency"] == pytest.approx(110)


def test_a_job_in_words() -> None:
    assert null().title == "null models"
    assert Job(precision="bf16", batch=4).title == "detic + sam_vit_b, batch 4, bf16"
    assert Job(segmenter="sam_vit_l", detector="annotations").title == "sam_vit_l"


@pytest.mark.parametrize(
    ("what", "why"),
    [(null(), "no reference"), (Job(segmenter="grabcut"), "no reference for detic with grabcut")],
)
def test_jobs_without_reference(what: Job, why: str) -> None:
    assert why in str(reference.lacking(what))


@pytest.mark.parametrize(("flipped", "message"), [(0, None), (40, "mask IoU 0.9200")])
def test_masks_of_the_reference_are_compared(
    flipped: int, message: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image is not square, and only the first one has an answer."""
    bits = np.zeros((30, 40), np.bool_)
    bits[5:25, 10:35] = True
    theirs = reference.Answer(np.array([10, 5, 35, 25], np.float32), bits.copy(), 1.0)
    bits.flat[np.flatnonzero(bits)[:flipped]] = False
    sample = SimpleNamespace(box=theirs.box + np.float32(0.2), rle=ops.rle_encode(bits), size=Size(30, 40))
    monkeypatch.setattr(reference, "outcomes", lambda out: {"a.jpg": sample, "b.jpg": sample})
    if message:
        with pytest.raises(AssertionError, match=message):
            reference.compare([theirs], ONE, exact=True)
    rows = {row.name: row.value for row in reference.compare([theirs], ONE, exact=False)}
    assert rows["share of boxes that are the reference's"] == 1
    assert rows["smallest mask IoU where the box is the same"] == pytest.approx(1 - flipped / 500)


def test_peak_memory_counts_children() -> None:
    code = "import time; block = bytearray(200 * 2**20); block[::4096] = b'x' * len(block[::4096]); time.sleep(0.5)"
    with memory.PeakMemory() as alone:
        pass
    with memory.PeakMemory() as watched:
        subprocess.run([sys.executable, "-c", code], check=True)
    assert 190 < watched.mib - alone.mib < 400


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_peak_memory_leaves_out_a_child_before_exec() -> None:
    # One write each, so that the lines of the two processes do not mix.
    code = "import os, time; block = b'x' * (256 * 2**20); os.write(1, b'%d\\n' % os.fork()); time.sleep(60)"
    before = memory.memory_mib()
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(max(int(parent.stdout.readline()) for _ in range(2)))
        try:
            assert 250 < memory.memory_mib() - before < 450
        finally:
            child.kill()
            parent.kill()
