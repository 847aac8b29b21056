"""Names that command a terminal, through every command, on a terminal and without one."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command import fgfast
from layouts import make_image

pty = pytest.importorskip("pty", reason="Windows has no such names")

# Clears the screen, writes the clipboard, returns to the start of the line, reverses, forges a message, is no UTF-8.
NAMES = ("a\x1b[2Jb", "c\x1b]52;c;YQ==\x07d", "e\rf\x08", "g\u202egpj", "h\nerror: all images are lost", "i\udcff")
COMMAND = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
# What rich and we write on a terminal: colours, cursor movements, the end of a line.
OURS = re.compile(r"\x1b\[[\d;?]*[A-Zhlm]|\r")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, whose images and classes have such names; some images are broken."""
    for n, name in enumerate(NAMES):
        make_image(tmp_path / "data" / f"class {name}" / f"{name}.png", n)
        (tmp_path / "data" / f"class {name}" / f"bad {name}.jpg").write_bytes(b"no image")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def harmless(*texts):
    for text in texts:
        assert not COMMAND.search(text), COMMAND.search(text)
        assert not re.search("^error: all images", text, re.MULTILINE)


def on_a_terminal(*arguments):
    """Run the command with a pseudo-terminal as output; return what it writes, without what we write on purpose."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "fgfast", *arguments], stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True
    )
    os.close(theirs)
    parts = []
    try:
        while part := os.read(ours, 1 << 16):
            parts.append(part)
    except OSError:  # the end of a pseudo-terminal
        pass
    os.close(ours)
    assert process.wait(60) in (0, 2, 3)
    return b"".join(parts).decode()


def test_convert(folder):
    command = ("convert", "folder", "--root", "data", "--out", "out", "--segmenter", "box")
    for more in (("--dry-run",), ("-vv",), ("--json", "--overwrite")):
        done = fgfast(*command, *more)
        assert done.returncode in (0, 3), done.stderr
        harmless(done.stdout, done.stderr)
    text = on_a_terminal(*command, "--overwrite", "-v")
    assert "Finished" in text
    harmless(OURS.sub("", text))
    done = fgfast("verify", "out")
    harmless(done.stdout, done.stderr)


def test_cut(folder):
    images = [str(path) for path in sorted(Path("data").rglob("*.*")) if path.is_file()]
    done = fgfast("cut", *images, "--segmenter", "box")
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 3 and len(errors) == done.stdout.count("is subject") == len(NAMES)
    harmless(done.stdout, done.stderr)
    text = on_a_terminal("cut", *images, "--segmenter", "box", "-vv")
    harmless(OURS.sub("", text))


def test_mistakes(folder):
    name = "".join(NAMES[:5])
    for arguments in (
        ("convert", name),
        ("convert", "cub", "--root", name, "--out", "out"),
        ("convert", "--like", name),
        ("convert", "folder", "--root", "data", "--out", f"{name}/out", "--background", name),
        ("cut", f"data/class {NAMES[0]}"),
        ("verify", name),
        ("datasets", "--root", name),
        ("models", "verify", name),
        (name,),
    ):
        done = fgfast(*arguments)
        harmless(done.stdout, done.stderr)
        assert "Traceback" not in done.stderr


def test_another_encoding(folder):
    done = fgfast("cut", f"data/class {NAMES[3]}/{NAMES[3]}.png", "--segmenter", "box", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    harmless(done.stdout, done.stderr)
