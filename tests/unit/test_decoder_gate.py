"""Choosing a decoder by speed and by its masks. GPU decoders cannot be here: `Fake` stands for one, and is thin."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from fgfast.config import Settings
from fgfast.errors import SampleError
from fgfast.io.decode import decode
from fgfast.pipeline import decoder_choice as decoder_gate
from fgfast.pipeline.decoder_choice import GateJob, Trial, choose
from fgfast.records import Image, Sample
from fgfast.runner import Seat


class Fake:
    """A decoder in the place of a GPU's: as fast as it is told, with pixels as wrong as it is told."""

    batch = 4

    def __init__(self, name: str, seconds: float, shift: int) -> None:
        self.name, self.seconds, self.shift = name, seconds, shift

    def __call__(self, files: Sequence[bytes], names: Sequence[str], turn_exif: bool) -> list[Image | SampleError]:
        time.sleep(self.seconds)
        images = [decode(data, name, turn_exif).pixels for data, name in zip(files, names, strict=True)]
        return [Image(np.roll(pixels, self.shift, 1)) for pixels in images]

    def close(self) -> None: ...


def samples(folder: Path) -> list[Sample]:
    """Bright squares on noise: GrabCut finds them where they are."""
    generator = np.random.default_rng(0)
    made = []
    for n in range(6):
        pixels = generator.integers(0, 60, (90, 120, 3)).astype(np.uint8)
        pixels[25:65, 30:80] += 150
        path = folder / f"{n}.png"
        Pillow.fromarray(pixels).save(path)
        made.append(Sample(path.name, path, boxes=np.array([[22, 18, 90, 74]], np.float32)))
    return made


JOB = GateJob(Settings(detector="annotations", segmenter="grabcut", devices="cpu"), (), False)


@pytest.mark.parametrize(
    ("fakes", "chosen", "words"),
    [
        ([Fake("dali", 0.0, 0)], "cpu", "images per second"),  # it decodes on the CPU, too: no gain
        ([Fake("dali", 1.0, 0)], "cpu", "images per second"),
    ],
    ids=["as fast", "slow"],
)
def test_a_decoder_that_is_no_faster_is_not_used(
    fakes: list[Fake], chosen: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_gate, "_candidates", lambda device: (fakes, []))
    monkeypatch.setattr(decoder_gate, "rates", lambda decoders, files: {d.name: 100.0 for d in decoders})
    name, reason = choose(JOB, "cpu", samples(tmp_path))
    assert name == chosen and words in reason


@pytest.mark.parametrize(
    ("shifts", "chosen"),
    [({"dali": 0, "nvjpeg": 0}, "dali"), ({"dali": 9, "nvjpeg": 0}, "nvjpeg"), ({"dali": 9}, "cpu")],
)
def test_the_fastest_with_the_same_masks_is_used(
    shifts: dict[str, int], chosen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speed = {"dali": 900.0, "nvjpeg": 500.0, "cpu": 100.0}
    fakes = [Fake(name, 0.0, shift) for name, shift in shifts.items()]
    monkeypatch.setattr(decoder_gate, "_candidates", lambda device: (fakes, ["another cannot be used: so"]))
    monkeypatch.setattr(decoder_gate, "rates", lambda decoders, files: {d.name: speed[d.name] for d in decoders})
    name, reason = choose(JOB, "cpu", samples(tmp_path))
    assert name == chosen
    assert "another cannot be used: so" in reason
    assert ("did not pass the parity gate" in reason) == any(shifts.values())


def test_nothing_to_decode_leaves_the_cpu(tmp_path: Path) -> None:
    broken = tmp_path / "a.jpg"
    broken.write_bytes(b"nothing")
    missing = Sample("b.jpg", tmp_path / "b.jpg")
    assert choose(JOB, "cpu", [Sample("a.jpg", broken), missing])[0] == "cpu"


def test_the_job_answers_for_a_trial_as_a_whole(tmp_path: Path) -> None:
    opened = JOB.open(Seat("cpu", "cpu"))
    trial = Trial(samples(tmp_path))
    (stage,) = opened.stages
    stage(trial)  # type: ignore[operator]
    assert trial.chosen[0] == "cpu" and "cpu" in trial.chosen[1]
