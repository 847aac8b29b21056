"""Whatever lies under a file's name, it is read or refused at once: nothing blocks, nothing fills the memory."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as pillow

import fgfast
from fgfast import files
from fgfast.config import Background
from fgfast.datasets.annotation_files import copy_file, read_lines
from fgfast.errors import LINK_OUT, DatasetError, SampleError, UsageError
from fgfast.files import FileTooLargeError, NotAFileError, read_regular
from fgfast.io import decode
from fgfast.io.decode import read_bytes
from fgfast.io.ledger import Ledger
from fgfast.models.vocabulary import read_names
from fgfast.writing import Target

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX files")

_sockets: list[socket.socket] = []


def pipe(path: Path) -> None:
    os.mkfifo(path)


def link(to: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        if not Path(to).exists():
            pytest.skip(f"{to} is not here")
        path.symlink_to(to)

    return make


def bound_socket(path: Path) -> None:
    _sockets.append(socket.socket(socket.AF_UNIX))
    _sockets[-1].bind(str(path))


NOT_FILES = {
    "folder": Path.mkdir,
    "pipe": pipe,
    "socket": bound_socket,
    "zeros": link("/dev/zero"),
    "random": link("/dev/urandom"),
    "nothing": link("/dev/null"),
    "terminal": link("/dev/tty"),
    "proc": link("/proc/self/status"),
    "memory": link("/proc/self/mem"),
    "sys": link("/sys/kernel/uevent_seqnum"),
}


@pytest.fixture(autouse=True)
def at_once() -> Iterator[None]:
    """A reader that blocks would hang the tests: it is ended instead."""
    import faulthandler

    faulthandler.dump_traceback_later(60, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()
    while _sockets:
        _sockets.pop().close()


@posix
@pytest.mark.parametrize("kind", NOT_FILES)
def test_what_is_no_file_is_refused_by_every_reader(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    NOT_FILES[kind](path)
    with pytest.raises(NotAFileError, match=r"x\.jpg"):
        read_regular(path)
    with pytest.raises(SampleError, match=r"x\.jpg") as caught:
        read_bytes(path)
    assert caught.value.reason == "not a file"
    for read in (read_lines, lambda name: copy_file(name, Target(tmp_path, "copy"))):
        with pytest.raises(DatasetError, match="cannot be read"):
            read(path)
    with pytest.raises(UsageError):
        read_names(path)
    with pytest.raises((UsageError, OSError)):
        Background.parse(str(path))


@posix
def test_a_run_goes_on_past_what_is_no_file(tmp_path: Path) -> None:
    """A pipe cost two workers and ten minutes; a link to /dev/zero all memory."""
    source = tmp_path / "birds"
    source.mkdir()
    for n in range(3):
        pillow.fromarray(np.full((20, 30, 3), 40 * n, np.uint8)).save(source / f"{n}.png")
    pipe(source / "pipe.jpg")
    link("/dev/zero")(source / "zero.jpg")
    settings = fgfast.Settings(segmenter="box", detector="center", devices="cpu")
    report = fgfast.convert(source, tmp_path / "out", settings=settings)
    with Ledger(report.out / "fgfast" / "ledger.sqlite") as ledger:
        outcomes = {outcome.key: outcome for outcome in ledger.outcomes()}
    assert report.counts["done"] == 3
    for name in ("pipe.jpg", "zero.jpg"):
        if name in outcomes:  # the layout may pass over what is no file
            assert outcomes[name].reasons == ({"pipe.jpg": "not a file"}.get(name, LINK_OUT),)
    assert report.seconds < 20


@pytest.mark.parametrize("size", [0, 1, 1000, (1 << 20) + 7])
def test_regular_files_are_read_whole(size: int, tmp_path: Path) -> None:
    content = np.random.default_rng(size).bytes(size)
    (tmp_path / "x").write_bytes(content)
    (tmp_path / "link").symlink_to("x")
    assert read_regular(tmp_path / "x") == read_regular(tmp_path / "link", size) == content


def test_a_sparse_file_is_refused_without_being_read(tmp_path: Path) -> None:
    with (tmp_path / "x.jpg").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(SampleError, match="1,073,741,824 bytes") as caught:
        read_bytes(tmp_path / "x.jpg")
    assert caught.value.reason == "too large"


def test_the_limit_is_the_number_of_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").write_bytes(bytes(100))
    assert len(read_regular(tmp_path / "x", 100)) == 100
    with pytest.raises(FileTooLargeError):
        read_regular(tmp_path / "x", 99)
    monkeypatch.setattr(decode, "MAX_BYTES", 99)
    with pytest.raises(SampleError, match="99 bytes"):
        read_bytes(tmp_path / "x")


class Unsized:
    """A file whose size the system does not know, as on some network file systems, or that grows."""

    def __init__(self, content: bytes) -> None:
        self._left = content

    def read(self, count: int) -> bytes:
        piece, self._left = self._left[:count], self._left[count:]
        return piece


@pytest.mark.parametrize("known", [0, 10, 4_999_999])
def test_a_file_larger_than_its_size_is_read_to_the_end_or_the_limit(known: int) -> None:
    content = np.random.default_rng(0).bytes(5_000_000)
    assert files._content(Unsized(content), Path("x"), known, None) == content
    assert files._content(Unsized(content), Path("x"), known, len(content)) == content
    with pytest.raises(FileTooLargeError):
        files._content(Unsized(content), Path("x"), known, len(content) - 1)


@posix
def test_a_pipe_with_a_writer_is_not_read_either(tmp_path: Path) -> None:
    pipe(tmp_path / "x.jpg")
    opened = threading.Thread(target=lambda: (tmp_path / "x.jpg").open("rb").close(), daemon=True)
    opened.start()
    writer = os.open(tmp_path / "x.jpg", os.O_WRONLY)
    opened.join()
    try:
        with pytest.raises(NotAFileError):
            read_regular(tmp_path / "x.jpg")
    finally:
        os.close(writer)
