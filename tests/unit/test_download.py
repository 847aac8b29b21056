"""Downloads from a server on this machine: whole, interrupted, wrong, hostile."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import tracemalloc
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from email.message import Message
from pathlib import Path
from types import SimpleNamespace

import layouts
import pytest
from mirror import Mirror, serving

from fgfast import transfer, web
from fgfast.datasets import download as module
from fgfast.datasets import open_dataset, unpacking
from fgfast.datasets.download import Resource, download
from fgfast.datasets.unpacking import unpack
from fgfast.errors import DownloadError, OfflineError, UsageError
from fgfast.models.files import weights
from fgfast.transfer import fetch


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    with serving(monkeypatch) as server:
        yield server


CONTENT = bytes(range(256)) * 40


def resource(content: bytes = CONTENT, file: str = "some.bin") -> Resource:
    return Resource(f"https://nowhere.invalid/a/{file}", f"sha256:{hashlib.sha256(content).hexdigest()}")


def tar_of(folder: Path, inside: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(folder, inside or folder.name)
    return buffer.getvalue()


def serve(monkeypatch: pytest.MonkeyPatch, mirror: Mirror, name: str, contents: list[bytes]) -> None:
    """Serve the files of `name` from the mirror, with the digests of their contents."""
    served = []
    for official, content in zip(module.RESOURCES[name], contents, strict=True):
        served.append(replace(official, digest=f"md5:{hashlib.md5(content).hexdigest()}"))
        mirror.files[official.file] = content
    monkeypatch.setitem(module.RESOURCES, name, tuple(served))


def test_a_file_is_fetched_and_progress_reported(mirror: Mirror, tmp_path: Path) -> None:
    mirror.files["some.bin"] = CONTENT
    reported: list[tuple[str, int, int | None]] = []
    path = fetch(resource(), tmp_path, lambda *args: reported.append(args))
    assert path.read_bytes() == CONTENT
    assert reported[-1] == ("some.bin", len(CONTENT), len(CONTENT))
    assert [p.name for p in tmp_path.iterdir()] == ["some.bin"]
    fetch(resource(), tmp_path)
    assert len(mirror.asked) == 1


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_transfer_is_resumed(mirror: Mirror, tmp_path: Path, ranges: bool) -> None:
    mirror.files["some.bin"], mirror.breaks, mirror.ranges = CONTENT, 2, ranges
    assert fetch(resource(), tmp_path).read_bytes() == CONTENT
    half = len(CONTENT) // 2
    second = half + half // 2 if ranges else half
    assert mirror.asked == [None, f"bytes={half}-", f"bytes={second}-"]


def test_a_transfer_fails_after_three_retries_and_is_resumed_later(mirror: Mirror, tmp_path: Path) -> None:
    mirror.files["some.bin"], mirror.breaks = CONTENT, 4
    with pytest.raises(DownloadError, match=r"some\.bin: the transfer broke off.*FGFAST_MIRROR"):
        fetch(resource(), tmp_path)
    assert (tmp_path / "some.bin.part").is_file()
    assert not (tmp_path / "some.bin").exists()
    assert fetch(resource(), tmp_path).read_bytes() == CONTENT
    assert len(mirror.asked) == 5


def test_a_partial_file_that_is_whole_or_too_long(mirror: Mirror, tmp_path: Path) -> None:
    mirror.files["some.bin"] = CONTENT
    for part in (CONTENT, CONTENT + b"more"):
        (tmp_path / "some.bin.part").write_bytes(part)
        path = fetch(resource(), tmp_path)
        assert path.read_bytes() == CONTENT
        path.unlink()


def test_errors_of_the_server(mirror: Mirror, tmp_path: Path) -> None:
    mirror.files["some.bin"], mirror.codes = CONTENT, [503, 429]
    assert fetch(resource(), tmp_path).read_bytes() == CONTENT
    with pytest.raises(DownloadError, match=r"other\.bin: HTTP 404"):
        fetch(resource(file="other.bin"), tmp_path)
    assert len(mirror.asked) == 4


def test_a_server_that_does_not_answer(mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FGFAST_MIRROR", "http://127.0.0.1:1")
    with pytest.raises(DownloadError, match=r"http://127\.0\.0\.1:1/some\.bin: .*refused"):
        fetch(resource(), tmp_path)
    monkeypatch.setenv("FGFAST_MIRROR", "file:///etc")
    with pytest.raises(UsageError, match="http"):
        fetch(resource(), tmp_path)


def test_offline_nothing_is_fetched(mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror.files["some.bin"] = CONTENT
    monkeypatch.setenv("FGFAST_OFFLINE", "1")
    with pytest.raises(OfflineError, match=r"some\.bin is not fetched while FGFAST_OFFLINE is set.*save it as"):
        fetch(resource(), tmp_path)
    assert mirror.asked == []
    monkeypatch.setenv("FGFAST_OFFLINE", "0")
    fetch(resource(), tmp_path)
    monkeypatch.setenv("FGFAST_OFFLINE", "yes")
    assert fetch(resource(), tmp_path).read_bytes() == CONTENT


def test_a_wrong_checksum_removes_the_file(mirror: Mirror, tmp_path: Path) -> None:
    mirror.files["some.bin"] = CONTENT[:-1]
    with pytest.raises(DownloadError, match=r"SHA256 is [0-9a-f]{64}, expected [0-9a-f]{64} \(10239 bytes\)"):
        fetch(resource(), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("lengths", [True, False])
@pytest.mark.parametrize("known", [{"size": 1000}, {"most": 1000}])
def test_a_server_that_sends_more_than_the_file_has(
    mirror: Mirror, tmp_path: Path, lengths: bool, known: dict[str, int]
) -> None:
    mirror.files["some.bin"], mirror.lengths = CONTENT, lengths
    with pytest.raises(DownloadError, match=r"some\.bin has more than 1,000 bytes.*removed.*FGFAST_MIRROR"):
        fetch(replace(resource(), **known), tmp_path)
    assert list(tmp_path.iterdir()) == [] and len(mirror.asked) == 1
    (tmp_path / "some.bin.part").write_bytes(CONTENT[:1001])
    with pytest.raises(DownloadError, match="more than 1,000 bytes"):
        fetch(replace(resource(), **known), tmp_path)
    assert fetch(replace(resource(), size=len(CONTENT)), tmp_path).read_bytes() == CONTENT


def test_every_file_has_a_limit() -> None:
    for resources in module.RESOURCES.values():
        assert all(0 < each.limit <= 4e9 for each in resources)
    for model in weights.MODELS.values():
        assert all(0 < each.limit <= 1 << 32 for each in model.files)


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x", "FILE:/etc/passwd"])
def test_a_server_that_leads_elsewhere(mirror: Mirror, tmp_path: Path, to: str) -> None:
    mirror.moved["some.bin"] = to
    url = resource().address()
    for fetching in (lambda: fetch(resource(), tmp_path), lambda: transfer.read_url(url, 100)):
        with pytest.raises(DownloadError, match=r"some\.bin leads to .*, which is not fetched"):
            fetching()
    assert list(tmp_path.iterdir()) == []
    mirror.moved, mirror.files["other"] = {"some.bin": url.replace("some.bin", "other")}, CONTENT
    assert fetch(resource(), tmp_path).read_bytes() == CONTENT


def test_https_never_becomes_http() -> None:
    handler = web._Redirects()
    for start, to, followed in (
        ("https://a/x", "http://a/x", False),
        ("https://a/x", "HTTP://a/x", False),
        ("https://a/x", "https://b/x", True),
        ("http://a/x", "https://a/x", True),
        ("http://a/x", "http://b/x", True),
    ):
        headers, opened = Message(), SimpleNamespace(open=lambda new, timeout: new)
        headers["Location"], handler.parent = to, opened  # type: ignore[assignment]
        for code in (301, 302, 303, 307, 308):
            request, follow = urllib.request.Request(start), getattr(handler, f"http_error_{code}")
            request.timeout = 1
            if followed:
                assert follow(request, io.BytesIO(), code, "Found", headers).full_url == to
            else:
                with pytest.raises(DownloadError, match="https://a/x leads to"):
                    follow(request, io.BytesIO(), code, "Found", headers)
    assert any(isinstance(one, web._Redirects) for one in web.opener().handlers)  # type: ignore[attr-defined]


def test_a_partial_file_that_is_a_link_is_not_written_through(mirror: Mirror, tmp_path: Path) -> None:
    mirror.files["some.bin"] = CONTENT
    (tmp_path / "mine").write_bytes(b"mine")
    (tmp_path / "some.bin.part").symlink_to(tmp_path / "mine")
    assert fetch(resource(), tmp_path).read_bytes() == CONTENT
    assert (tmp_path / "mine").read_bytes() == b"mine"


def test_a_full_disk(mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    serve(monkeypatch, mirror, "cub", [b"x"])
    monkeypatch.setattr(transfer, "_store", full)
    with pytest.raises(DownloadError, match=r"No space left on device\. Free space"):
        download("cub", tmp_path)


@pytest.mark.parametrize("name", ["aircraft", "cub", "pets", "flowers"])
def test_a_data_set_is_fetched_and_opened(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    root = layouts.BUILDERS[name](tmp_path / "source")
    if name == "pets":
        contents = [tar_of(root / "images"), tar_of(root / "annotations")]
    elif name == "flowers":
        mats = [(root / file).read_bytes() for file in ("imagelabels.mat", "setid.mat")]
        contents = [tar_of(root / "jpg"), *mats]
    else:
        contents = [tar_of(root)]
    serve(monkeypatch, mirror, name, contents)
    into = tmp_path / "data"
    assert download(name, into) == into / root.name
    assert [sample.key for sample in open_dataset(name, search=[into]).samples] == [
        sample.key for sample in open_dataset(name, root=root).samples
    ]
    assert [path.name for path in into.iterdir()] == [root.name]
    asked = len(mirror.asked)
    assert download(name, into) == into / root.name
    assert len(mirror.asked) == asked


def test_an_archive_of_something_else_leaves_nothing(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, mirror, "cub", [tar_of(layouts.flowers(tmp_path), "CUB_200_2011")])
    with pytest.raises(DownloadError, match=r"hold no images\.txt"):
        download("cub", tmp_path / "data")
    assert not (tmp_path / "data/CUB_200_2011").exists()


def test_data_sets_without_an_address_are_refused_with_instructions(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="pytorch/vision/issues/7545"):
        download("cars", tmp_path)
    (tmp_path / "CUB_200_2011").mkdir()
    with pytest.raises(UsageError, match="Move it away"):
        download("cub", tmp_path)


def hostile(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


@pytest.mark.parametrize(
    "member",
    [
        hostile("../evil"),
        hostile("a/../../evil"),
        hostile("/tmp/evil"),
        hostile("a\\..\\evil"),
        hostile("C:/evil"),
        hostile("link", tarfile.SYMTYPE, "/etc/passwd"),
        hostile("link", tarfile.LNKTYPE, "../../evil"),
        hostile("device", tarfile.CHRTYPE),
        hostile("pipe", tarfile.FIFOTYPE),
        hostile("holes", tarfile.GNUTYPE_SPARSE),
        hostile("harmless"),
        hostile("harmless/below"),
        hostile("a\x1b[31mb"),
        hostile("a\u202eb"),
    ],
    ids=lambda member: member.name,
)
def test_hostile_archives_are_refused_whole(tmp_path: Path, member: tarfile.TarInfo) -> None:
    archive = tmp_path / "a.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.addfile(hostile("harmless"))
        tar.addfile(member)
    with pytest.raises(DownloadError, match="not safe to unpack"):
        unpack(archive, tmp_path / "into" / "deep")
    assert not (tmp_path / "into").exists()
    assert not (tmp_path / "evil").exists()


def bomb(claimed: int, kind: bytes = tarfile.REGTYPE, times: int = 1, content: bytes = b"") -> bytes:
    """A gzipped archive whose members claim to have any number of bytes; the bytes themselves may be missing."""
    buffer = io.BytesIO()
    with gzip.open(buffer, "wb") as file:
        for number in range(times):
            member = hostile(f"m{number}", kind)
            member.size = claimed
            file.write(member.tobuf(tarfile.GNU_FORMAT) + content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (bomb(1 << 40), "claims to have"),
        (bomb(9 << 30, times=3), "cannot be unpacked|holds more than"),
        (bomb(1 << 33, tarfile.XHDTYPE), "claims to hold|claims to have"),
        (bomb(1 << 33, tarfile.GNUTYPE_LONGNAME), "claims to hold|claims to have"),
        (bomb(0, tarfile.XHDTYPE, times=3000), "cannot be unpacked"),
        (bomb(512, tarfile.XHDTYPE, content=b"30 size=" + b"9" * 504), "cannot be unpacked"),
        (bomb(0, times=50), "more than 40 files and folders"),
        (b"BZh9" + bytes(1000), "cannot be unpacked"),
    ],
    ids=["size", "sizes", "pax header", "long name", "chain of headers", "number", "members", "bzip2"],
)
def test_bombs_are_refused_before_memory_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, problem: str
) -> None:
    monkeypatch.setattr(unpacking, "MOST_MEMBERS", 40)
    (tmp_path / "a.tgz").write_bytes(content)
    tracemalloc.start()
    with pytest.raises(DownloadError, match=problem):
        unpack(tmp_path / "a.tgz", tmp_path / "into")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 32 << 20 and not (tmp_path / "into").exists()


def test_a_stream_that_expands_without_end_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "MOST_BYTES", 1 << 20)
    (tmp_path / "a.tgz").write_bytes(bomb(1 << 19, times=3, content=bytes(1 << 19)))
    with pytest.raises(DownloadError, match="holds more than 1,048,576 bytes"):
        unpack(tmp_path / "a.tgz", tmp_path / "into")
    assert not (tmp_path / "into").exists()


def test_what_is_unpacked_is_plain(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        member = hostile("folder/file")
        member.mode, member.size = 0o6777, 3
        tar.addfile(member, io.BytesIO(b"abc"))
        tar.addfile(hostile("folder", tarfile.DIRTYPE))
    unpack(tmp_path / "a.tar", tmp_path / "into")
    file = tmp_path / "into" / "folder" / "file"
    assert file.read_bytes() == b"abc" and file.stat().st_mode & 0o7111 == 0


def test_half_an_archive_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "a.tgz"
    archive.write_bytes(tar_of(layouts.cub(tmp_path))[:200])
    with pytest.raises(DownloadError, match="cannot be unpacked"):
        unpack(archive, tmp_path / "into")
