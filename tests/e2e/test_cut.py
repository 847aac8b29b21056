"""`fgfast cut` as a person uses it: several images, streams, addresses, names, mistakes."""

from __future__ import annotations

import functools
import http.server
import io
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from command import fgfast
from layouts import make_image
from PIL import Image as pillow

from fgfast import transfer
from fgfast.cli import main


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with three images and one file that is none."""
    for n, name in enumerate(("a.png", "b.png", "sub/a.png")):
        make_image(tmp_path / name, n)
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def cut(*arguments: str, **more: bytes) -> Result:
    return CliRunner().invoke(main, ["cut", *arguments, "--segmenter", "box"], **more)


@pytest.fixture
def server(folder: Path) -> Iterator[str]:
    """The address of the folder."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))
    ) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def test_one_bad_image_fails_alone(folder: Path) -> None:
    done = cut("a.png", "bad.jpg", "gone.jpg", "b.png", "-o", "out")
    assert done.exit_code == 3
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["a_fg.png", "b_fg.png"]
    assert "error: bad.jpg is not an image" in done.stderr and "no file gone.jpg" in done.stderr
    assert done.stdout.count("of the image is subject") == 2


def test_without_a_name_the_cutout_is_beside_its_image(folder: Path) -> None:
    assert cut("sub/a.png", "b.png").exit_code == 0
    assert (folder / "sub/a_fg.png").is_file() and (folder / "b_fg.png").is_file()


def test_a_pattern_names_the_cutouts_and_their_format(folder: Path) -> None:
    assert cut("a.png", "b.png", "-o", "new/{stem}-cut.webp", "--quality", "40").exit_code == 0
    for name in ("a-cut.webp", "b-cut.webp"):
        with pillow.open(folder / "new" / name) as image:
            assert image.format == "WEBP"


def test_streams(folder: Path) -> None:
    command = [sys.executable, "-m", "fgfast", "cut", "-", "--background", "#ff0000", "--segmenter", "box"]
    done = subprocess.run(command, input=(folder / "a.png").read_bytes(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    with pillow.open(io.BytesIO(done.stdout)) as image:
        assert image.size == (48, 36) and image.getpixel((0, 0)) == (255, 0, 0)
    assert b"of the image is subject" in done.stderr
    assert cut("-", input=b"").exit_code == 3
    done = cut("-", "b.png", "-o", "out/", input=(folder / "a.png").read_bytes())
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["b_fg.png", "stdin_fg.png"], done.output


def test_addresses(folder: Path, server: str) -> None:
    done = cut(f"{server}/sub/a.png?size=large", f"{server}/gone.png", f"{server}/bad.jpg")
    assert done.exit_code == 3
    assert (folder / "a_fg.png").is_file()
    assert f"{server}/gone.png: HTTP 404" in done.stderr and "bad.jpg is not an image" in done.stderr


def test_an_address_is_not_fetched_offline_nor_without_end(
    folder: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(transfer.DownloadError, match="more than"):
        transfer.read_url(f"{server}/a.png", 100)
    monkeypatch.setenv("FGFAST_OFFLINE", "1")
    done = cut(f"{server}/a.png")
    assert done.exit_code == 2 and "FGFAST_OFFLINE" in done.stderr
    assert not (folder / "a_fg.png").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["a.png", "b.png", "-o", "x.png"], "one file, for 2 images"),
        (["a.png", "sub/a.png", "-o", "out"], "would both become"),
        (["a.png", "b.png", "-o", "-"], "standard output takes one"),
        (["-", "-"], "can be given once"),
        (["a.png", "-o", "a.png"], "the image itself"),
        (["b.png", "a.png", "-o", "{stem}.png"], "the image itself"),
        (["a.png", "b.png", "--box", "8,6,32,26"], "--box is for one image"),
        (["a.png", "--box", "8,6,32,26", "--detector", "detic"], "no effect where --box"),
        (["a.png", "--box", "8,6,32,26", "--vocabulary", "bird"], "no effect where --box"),
        (["a.png", "--box", "108,6,132,26"], "no pixel inside the image"),
        (["a.png", "--quality", "50"], "quality 50 has no effect with .png"),
        (["a.png", "--background", "transparent", "-o", "x.jpg"], "no transparency"),
        (["a.png", "-o", "x.gif"], "image format"),
        (["a.png", "-o", "new/nodir"], "no suffix, which tells the format: add one; for a folder write new/nodir/"),
        (["a.png", "-o", "{name}.png"], "placeholder {name}: there is only {stem}"),
        (["a.png", "b.png", "-o", "{stem}{}.png"], "placeholder {}"),
        (["a.png", "--detector", "center", "--batch", "2"], "batch 2 has no effect without a model"),
        (["a.png", "--devices", "cpu,cpu"], "one device"),
        (["sub"], "is a folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_answered_before_anything_is_written(arguments: list[str], says: str, folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    done = cut(*arguments)
    assert done.exit_code == 2, done.output
    assert says in " ".join(done.stderr.split())
    assert sorted(folder.rglob("*")) == before


def test_a_word_without_a_detector_for_it_says_what_to_fetch(folder: Path, tmp_path: Path) -> None:
    done = fgfast("cut", "a.png", "--vocabulary", "bird", cwd=folder, FGFAST_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 2
    assert "fgfast models pull detic" in done.stderr
    assert not (tmp_path / "cache").exists()
