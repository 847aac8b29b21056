"""What libraries say about an image is kept with it, and does not reach the terminal."""

from __future__ import annotations

import io
import logging
import struct
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from command import fgfast as command
from PIL import Image as pillow
from PIL import features

import fgfast
from fgfast.errors import SampleError
from fgfast.io import warned
from fgfast.io.decode import decode
from fgfast.io.warned import captured, collected
from fgfast.pipeline.plan import make_plan
from fgfast.pipeline.run import run
from fgfast.pipeline.work import Work, result_of
from fgfast.records import Sample
from fgfast.runner import Finished, worker_output

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


def with_broken_exif() -> bytes:
    """A whole PNG whose EXIF is cut short, about which Pillow warns."""
    buffer = io.BytesIO()
    exif = pillow.Exif()
    exif[0x0112], exif[0x010F] = 1, "a maker with a long name"
    pillow.fromarray(PIXELS).save(buffer, "PNG", exif=exif.tobytes()[:-20])
    return buffer.getvalue()


def with_broken_strip() -> bytes:
    """A TIFF whose compressed content is damaged, about which libtiff prints."""
    buffer = io.BytesIO()
    pillow.fromarray(PIXELS).save(buffer, "TIFF", compression="tiff_adobe_deflate")
    data = bytearray(buffer.getvalue())
    at = bytes(data).index(b"\x78", 8)
    data[at : at + 40] = b"\xff" * 40
    return bytes(data)


def with_strange_tag() -> bytes:
    """A whole TIFF with a tag beyond the end of the file."""
    buffer = io.BytesIO()
    pillow.fromarray(PIXELS).save(buffer, "TIFF", software="x" * 50)
    data = bytearray(buffer.getvalue())
    at = bytes(data).index(struct.pack("<HHI", 305, 2, 51))
    data[at + 8 : at + 12] = struct.pack("<I", 1 << 30)
    return bytes(data)


def texts(data: bytes) -> tuple[str, ...]:
    try:
        return decode(data, "x", True).warnings
    except SampleError as error:
        return error.warnings


def test_warnings_of_pillow_come_with_their_image() -> None:
    with captured():
        for _ in range(3):  # of every image, not only of the first
            assert any("Truncated File Read" in text for text in texts(with_broken_exif()))
            assert texts(with_strange_tag())
            assert texts(with_strange_tag()) == texts(with_strange_tag())
    whole = io.BytesIO()
    pillow.fromarray(PIXELS).save(whole, "TIFF")
    with captured():
        assert texts(whole.getvalue()) == ()


needs_libtiff = pytest.mark.skipif(
    not features.check("libtiff") or warned._loaded_libtiff() is None, reason="libtiff is part of Pillow's own module"
)


@pytest.fixture
def nothing_captured() -> None:
    """A run in this process, of an earlier test, captures until the process ends."""
    warned._captures.close()


@needs_libtiff
@pytest.mark.usefixtures("nothing_captured")
def test_messages_of_libtiff_come_with_their_image(capfd: pytest.CaptureFixture[str]) -> None:
    texts(with_broken_strip())
    assert "ZIPDecode" in capfd.readouterr().err, "libtiff no longer prints: the handler is not needed"
    with captured():
        found = texts(with_broken_strip())
    assert any("ZIPDecode" in text for text in found)
    assert capfd.readouterr().err == ""
    texts(with_broken_strip())
    assert "ZIPDecode" in capfd.readouterr().err, "its own handler is back"


@needs_libtiff
def test_threads_do_not_take_each_others_warnings() -> None:
    kinds = {"Truncated": with_broken_exif(), "ZIPDecode": with_broken_strip()}
    wrong: list[tuple[str, tuple[str, ...]]] = []

    def work(kind: str) -> None:
        for _ in range(40):
            found = texts(kinds[kind])
            if not found or any(other in text for text in found for other in kinds if other != kind):
                wrong.append((kind, found))

    with captured():
        threads = [threading.Thread(target=work, args=(kind,)) for kind in [*kinds] * 2]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_few_and_short_texts_are_kept_and_others_pass() -> None:
    with captured():
        warnings.simplefilter("always")
        with collected() as found:
            for n in range(20):
                warnings.warn(f"number {n} " + "x" * 1000, stacklevel=1)
                warnings.warn("number 0 " + "x" * 1000, stacklevel=1)
        assert len(found) == 3 and len(set(found)) == 3 and max(map(len, found)) <= 200
        with pytest.warns(UserWarning, match="of another module"):
            warnings.warn("of another module", stacklevel=1)


def test_an_outcome_has_the_warnings_whether_done_or_failed() -> None:
    with captured():
        work = Work(0, Sample("a.tif", Path("a.tif")), "a.tif", image=decode(with_broken_exif(), "a.tif", True))
        failed = result_of(Finished(work, "detect", SampleError("too thin", "x"))).outcome
        assert failed.warnings and failed.warnings == work.image.warnings
        with pytest.raises(SampleError) as caught:
            decode(with_broken_strip(), "a.tif", True)
    outcome = result_of(Finished(Work(0, work.sample, "a.tif"), "decode", caught.value)).outcome
    assert outcome.warnings == caught.value.warnings


@pytest.fixture
def noisy(tmp_path: Path) -> Path:
    folder = tmp_path / "noisy"
    folder.mkdir()
    for n in range(4):
        (folder / f"exif{n}.png").write_bytes(with_broken_exif())
        (folder / f"strip{n}.tif").write_bytes(with_broken_strip())
        (folder / f"tag{n}.tif").write_bytes(with_strange_tag())
    return folder


@pytest.mark.parametrize("more", [(), ("--in-process",)])
def test_nothing_reaches_the_terminal(noisy: Path, more: tuple[str, ...], tmp_path: Path) -> None:
    asked = (
        "convert",
        "--dataset",
        str(noisy),
        "--out",
        str(tmp_path / "out"),
        "--segmenter",
        "box",
        "--devices",
        "cpu",
    )
    done = command(*asked, *more)
    assert done.returncode in (0, 3), done.stderr
    for word in ("UserWarning", "ZIPDecode", "Truncated", "warnings.warn", "Tag "):
        assert word not in done.stderr + done.stdout


@needs_libtiff
def test_the_thumbnails_of_the_report_print_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    whole = tmp_path / "in/a.tif"
    pillow.fromarray(PIXELS).save(whole, "TIFF", compression="tiff_adobe_deflate")
    settings = fgfast.Settings(segmenter="box", detector="center", devices="cpu")
    plan = make_plan("folder", tmp_path / "out", root=tmp_path / "in", settings=settings)
    broken = [with_broken_strip(), with_broken_exif()]

    def damage(counts: dict[str, int], total: int) -> None:
        if sum(counts.values()) == total:
            whole.write_bytes(broken.pop())

    for _ in range(2):
        capfd.readouterr()
        report = run(plan, progress=damage, mode="overwrite", in_process=True)  # type: ignore[arg-type]
        assert sum(report.counts.values()) == 1 and report.html.is_file()
        printed = capfd.readouterr()
        assert printed.err == printed.out == ""
    assert broken == []


def forwarded(code: str, caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    """What is logged about a process that runs this code."""
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
    assert process.stderr is not None
    with caplog.at_level(logging.DEBUG, "fgfast"):
        before = set(threading.enumerate())
        worker_output.forward(process.stderr, "cpu")
        process.wait(30)
        for thread in set(threading.enumerate()) - before:
            thread.join(10)
    return [(record.levelno, record.getMessage()) for record in caplog.records]


def test_messages_of_a_worker_are_for_debugging_and_its_tracebacks_are_errors(caplog: pytest.LogCaptureFixture) -> None:
    code = """
import os, sys, threading
os.write(2, b"libfoo: odd \\xff header\\n")
def fail(): raise ValueError("in a thread")
thread = threading.Thread(target=fail); thread.start(); thread.join()
sys.stderr.write("libfoo: more\\n" + "y" * 10_000 + "\\n")
raise KeyError("at the end")
"""
    found = forwarded(code, caplog)
    shown = [text for level, text in found if level == logging.ERROR]
    assert any("ValueError: in a thread" in text for text in shown)
    assert any("KeyError: 'at the end'" in text for text in shown)
    assert sum("Traceback (most recent call last)" in text for text in shown) == 2
    hidden = [text for level, text in found if level == logging.DEBUG]
    assert any("libfoo: odd" in text for text in hidden) and any("libfoo: more" in text for text in hidden)
    assert not any("libfoo" in text for text in shown)
    assert max(len(text) for _, text in found) < 5000


def test_a_crash_that_python_reports_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    code = "import faulthandler, ctypes; faulthandler.enable(); ctypes.string_at(0)"
    shown = [text for level, text in forwarded(code, caplog) if level == logging.ERROR]
    assert any("Fatal Python error" in text for text in shown) and len(shown) > 2


def test_cut_out_leaves_the_warnings_of_its_process_alone() -> None:
    settings = fgfast.Settings(segmenter="box")
    with pytest.warns(UserWarning, match="Truncated File Read"):
        fgfast.cut_out(with_broken_exif(), settings=settings)
