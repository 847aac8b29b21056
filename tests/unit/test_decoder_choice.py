"""Choosing a decoder by its pixels and its rate. GPU decoders cannot be here: `Fake` stands for one, and is thin."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from odd_images import plain
from PIL import Image as Pillow

from fgfast.config import Settings
from fgfast.errors import SampleError, UsageError
from fgfast.io.batched import BatchedDecoder
from fgfast.io.decode import decode
from fgfast.io.decoders import CpuDecoder
from fgfast.io.output import Output
from fgfast.models.files import measured
from fgfast.pipeline import decoder_choice
from fgfast.pipeline.decoder_choice import Parity, check_pixels, choose_decoder, fastest, rates, try_decoders
from fgfast.records import Image, Sample, UInt8
from fgfast.runner import Finished


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FGFAST_CACHE", str(tmp_path / "cache"))


class Fake:
    """A decoder in the place of a GPU's, with pixels that are shifted by so many levels, and turned."""

    batch = 4

    def __init__(self, name: str, levels: int = 0, turned: bool = False) -> None:
        self.name, self.levels, self.turned = name, levels, turned

    def __call__(self, files: Sequence[bytes], names: Sequence[str], turn_exif: bool) -> list[Image | SampleError]:
        found: list[Image | SampleError] = []
        for data, name in zip(files, names, strict=True):
            pixels = np.minimum(decode(data, name, turn_exif).pixels, 255 - self.levels) + np.uint8(self.levels)
            found.append(Image(np.ascontiguousarray(pixels[:, ::-1] if self.turned else pixels)))
        return found

    def close(self) -> None: ...


class Refusing:
    """A library that refuses all files but the known good one."""

    def decode(self, files: Sequence[UInt8]) -> list[UInt8]:
        if any(len(file) > 2000 for file in files):
            raise ValueError("no")
        return [decode(file.tobytes(), "", False).pixels for file in files]

    def close(self) -> None: ...


def samples(folder: Path, count: int = 6) -> list[Sample]:
    generator = np.random.default_rng(0)
    made = []
    for n in range(count):
        path = folder / f"{n}.jpg"
        Pillow.fromarray(generator.integers(0, 200, (90, 120, 3), np.uint8)).save(path, quality=95)
        made.append(Sample(path.name, path))
    return made


def tried(fakes: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Parity]:
    def made(name: str, device: str = "cpu", threads: int = 1) -> Any:
        if isinstance(fakes.get(name), Exception):
            raise fakes[name]
        return fakes.get(name) or CpuDecoder(threads)

    monkeypatch.setattr(decoder_choice, "available", lambda device: (*fakes, "cpu"))
    monkeypatch.setattr(decoder_choice, "decoder", made)
    return try_decoders(samples(folder), False, "cuda:0")


def test_pixels_are_right_where_they_differ_by_a_level_and_wrong_where_they_are_turned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes = {"dali": Fake("dali", 1), "nvjpeg": Fake("nvjpeg", turned=True)}
    right, wrong = tried(fakes, tmp_path, monkeypatch)
    assert (right.decoder, right.images, right.largest_levels, right.mean_levels) == ("dali", 6, 1, 1.0)
    assert right.right and right.rate > 0 and right.cpu_rate > 0
    assert not wrong.right and wrong.mean_levels > 20


def test_a_decoder_that_cannot_be_made_is_refused_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (found,) = tried({"dali": UsageError("no driver")}, tmp_path, monkeypatch)
    assert not found.right and found.sentence() == "dali cannot be used: no driver"


@pytest.mark.parametrize("error", [ValueError("both versions of an image"), RuntimeError()])
def test_one_decoder_that_fails_does_not_hide_the_others(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused, right = tried({"dali": error, "nvjpeg": Fake("nvjpeg", 1)}, tmp_path, monkeypatch)
    assert refused.refused == (str(error) or "RuntimeError") and right.right


def test_pixels_of_the_cpu_s_decoder_are_not_taken_for_the_library_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (found,) = tried({"dali": BatchedDecoder("dali", Refusing(), 4, CpuDecoder())}, tmp_path, monkeypatch)
    assert found.refused == "it decodes 0 of 6 plain JPEGs"


def test_files_that_the_cpu_decodes_anyway_are_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = samples(tmp_path)
    for sample in made[:4]:
        Pillow.open(sample.path).save(sample.path, format="png")
    monkeypatch.setattr(decoder_choice, "available", lambda device: ("dali", "cpu"))
    monkeypatch.setattr(
        decoder_choice, "decoder", lambda name, *more, **others: Fake("dali") if name == "dali" else CpuDecoder()
    )
    assert [parity.images for parity in try_decoders(made, False, "cuda:0")] == [2]
    assert try_decoders(made[:4], False, "cuda:0") == []
    assert "no plain JPEG" in fastest([], "cuda:0", "box")[1]


def test_the_parity_check_is_of_the_worst_image_and_needs_pairs() -> None:
    same = np.full((4, 4, 3), 7, np.uint8)
    other = same.copy()
    other[0, 0, 0] = 55
    assert check_pixels([same, other], [same, same]) == (1.0, 48)
    for ours, theirs in (([], []), ([same], []), ([same], [same[:1]])):
        with pytest.raises(ValueError, match=r"parity check|one size"):
            check_pixels(ours, theirs)


ENOUGH = Parity("dali", 8, 0.4, 3, 900.0, 100.0)
FAST, SLOW = Parity("dali", 6, 0.4, 3, 900.0, 100.0), Parity("nvjpeg", 6, 0.3, 2, 500.0, 100.0)
OFF, LATE = Parity("dali", 6, 9.0, 200, 900.0, 100.0), Parity("dali", 6, 0.1, 1, 105.0, 100.0)


@pytest.mark.parametrize(
    ("found", "chosen"),
    [([FAST, SLOW], "dali"), ([OFF, SLOW], "nvjpeg"), ([OFF], "cpu"), ([LATE], "cpu"), ([], "cpu")],
    ids=["the fastest", "the right one", "none is right", "none is faster", "nothing to decode"],
)
def test_the_fastest_that_is_right_is_used(found: list[Parity], chosen: str) -> None:
    name, reason = fastest(found, "cuda:0", "grabcut")
    assert name == chosen
    assert all(parity.sentence() in reason for parity in found) and reason


def test_a_decoder_that_cannot_be_used_is_not_chosen_whatever_the_bench_found() -> None:
    measured.remember(decoder_choice.verdict_key("dali", "cuda:0", "grabcut"), True)
    name, reason = fastest([Parity("dali", refused="no driver")], "cuda:0", "grabcut")
    assert name == "cpu" and reason == "dali cannot be used: no driver"


def test_the_verdict_of_the_bench_overrules() -> None:
    measured.remember(decoder_choice.verdict_key("dali", "cuda:0", "grabcut"), False)
    name, reason = fastest([FAST, SLOW], "cuda:0", "grabcut")
    assert name == "nvjpeg" and "found dali's masks wrong" in reason
    measured.remember(decoder_choice.verdict_key("dali", "cuda:0", "grabcut"), True)
    assert fastest([OFF], "cuda:0", "grabcut")[0] == "dali"
    assert fastest([OFF], "cuda:0", "sam_vit_l")[0] == "cpu"  # a verdict is about one segmenter


class Recorded(Output):
    """An output folder of which only what is recorded counts."""

    def __init__(self, fingerprint: dict[str, Any] | None) -> None:
        self._recorded = fingerprint

    def recorded(self) -> dict[str, Any] | None:
        return self._recorded


@dataclass(frozen=True)
class Plan:
    settings: Settings
    fingerprint: dict[str, Any]
    reasons: tuple[str, ...] = ()
    selected: tuple[Any, ...] = ()
    dataset: Any = None


def chosen(recorded: dict[str, Any] | None, mode: Any, messages: list[str], stop: bool = False) -> Any:
    ended = threading.Event()
    if stop:
        ended.set()
    plan: Any = Plan(
        Settings(devices="cuda:0"), {"decoder": "auto", "crop": "none"}, dataset=SimpleNamespace(turn_exif=False)
    )
    return choose_decoder(
        plan, Recorded(recorded), mode, stop=ended, in_process=False, deadline=60.0, on_message=messages.append
    )


def test_a_machine_is_asked_once_and_a_run_that_is_resumed_keeps_its_decoder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []

    def trial(*arguments: Any) -> list[Parity]:
        asked.append(1)
        return [replace(SLOW, images=8)]

    monkeypatch.setattr(decoder_choice, "available", lambda device: ("dali", "nvjpeg", "cpu"))
    monkeypatch.setattr(decoder_choice, "_tried", trial)
    messages: list[str] = []
    plan = chosen(None, "auto", messages)
    assert plan.settings.decoder == plan.fingerprint["decoder"] == "nvjpeg"
    assert messages == list(plan.reasons) == [f"decoder nvjpeg: {replace(SLOW, images=8).sentence()}"]
    plan = chosen({"decoder": "dali"}, "auto", messages)
    assert plan.settings.decoder == "dali" and messages[-1] == "decoder dali: that of the resumed run"
    assert chosen({"decoder": "dali"}, "overwrite", messages).settings.decoder == "nvjpeg"
    assert chosen({"decoder": "gone"}, "auto", messages).settings.decoder == "nvjpeg"
    assert asked == [1]


REFUSED, FEW = Parity("nvjpeg", refused="busy"), replace(SLOW, decoder="dali", images=7)


@pytest.mark.parametrize("found", [[ENOUGH, REFUSED], [FEW], []], ids=["one refused", "few images", "no image"])
def test_what_may_be_different_the_next_time_is_not_remembered(
    found: list[Parity], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_choice, "available", lambda device: ("dali", "cpu"))
    monkeypatch.setattr(decoder_choice, "_tried", lambda *arguments: found)
    chosen(None, "auto", [])
    assert measured.recall(measured.key_of("decoders by pixels", "cuda:0")) is None


def test_a_note_of_another_kind_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_choice, "available", lambda device: ("dali", "cpu"))
    monkeypatch.setattr(decoder_choice, "_tried", lambda *arguments: [ENOUGH])
    measured.remember(measured.key_of("decoders by pixels", "cuda:0"), [{"name": "dali"}])
    assert chosen(None, "auto", []).settings.decoder == "dali"


def test_the_trial_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    trial = decoder_choice.Trial(samples(tmp_path), False, "cpu")
    assert decoder_choice._tried(trial, threading.Event(), False, 60.0) == []  # a CPU has no decoder to try
    assert decoder_choice._tried(trial, threading.Event(), True, 60.0) == []


def test_a_trial_that_ends_early_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_choice, "available", lambda device: ("dali", "cpu"))
    messages: list[str] = []
    assert chosen(None, "auto", messages, stop=True).settings.decoder == "cpu"
    assert messages == ["decoder cpu: dali cannot be used: the trial was stopped"]
    trial = decoder_choice.Trial(samples(tmp_path), False, "cuda:0")
    (found,) = decoder_choice.TrialJob().result_of(Finished(trial, error=ValueError("broken pipe")))
    assert found.sentence() == "dali cannot be used: broken pipe"


class Slow:
    """A decoder that takes 20 ms per call."""

    name, batch = "slow", 3

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, files: Sequence[bytes], names: Sequence[str], turn_exif: bool) -> list[Image | SampleError]:
        self.calls.append(len(files))
        time.sleep(0.02)
        return []

    def close(self) -> None: ...


def test_rates_are_measured_in_turns() -> None:
    slow = Slow()
    found = rates([slow, CpuDecoder()], [plain()["1x1"]] * 4, rounds=2)
    assert slow.calls == [3, 1] * 3  # one round more, which is not timed
    assert found["slow"] < 100 < found["cpu"]
