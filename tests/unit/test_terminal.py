"""What reaches a terminal: nothing that commands it, and nothing past the one module that prints."""

import io
import json
import logging
import re
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from fgfast import terminal
from fgfast.cli import frame, main


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("a\rb\bc\x07\x00\x7f\x9b1m", r"a\x0db\x08c\x07\x00\x7f\x9b1m"),
        ("gpj\u202e.exe\u2066\u200f", r"gpj\u202e.exe\u2066\u200f"),
        ("byte \udcff", r"byte \udcff"),
        ("a\u2028b\x85c", r"a\u2028b\x85c"),
        ("größe 猫 \U0001f408\tb", "größe 猫 \U0001f408\tb"),
    ],
)
def test_characters_that_command_are_shown(text, shown):
    assert terminal.plain(text) == shown


@given(st.text(st.characters()))
def test_nothing_commands(text):
    for shown in (terminal.plain(text), terminal.line(text), terminal.message(text)):
        assert all(c in "\n\t" or (c.isprintable() or ord(c) > 0x9F) for c in shown)
        shown.encode()
    assert "\n" not in terminal.line(text)
    assert all(line.startswith("  ") for line in terminal.message(text).split("\n")[1:])


def test_a_message_in_a_name_is_no_message_of_its_own():
    assert terminal.message("no file a\nerror: b") == "no file a\n  error: b"
    assert terminal.line("a\nerror: b") == r"a\nerror: b"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_any_text_can_be_printed(encoding, monkeypatch):
    for name, say in (("stdout", terminal.say), ("stderr", terminal.note)):
        stream = io.TextIOWrapper(io.BytesIO(), encoding)
        monkeypatch.setattr(sys, name, stream)
        say("a\x1b猫\udc80")
        stream.flush()
        assert stream.buffer.getvalue().startswith(rb"a\x1b") and stream.buffer.getvalue().endswith(b"\\udc80\n")


def test_json_holds_no_control_character(capsys):
    text = "".join(map(chr, range(0x2070))) + "\udc80"
    terminal.say_json(json.dumps({"name": text}))
    out = capsys.readouterr().out
    assert json.loads(out) == {"name": text} and out.rstrip("\n").isprintable()


def test_a_path_is_exact_for_a_program(capsysbinary, monkeypatch):
    terminal.say_path(Path("a\x1b\udc80"))
    assert capsysbinary.readouterr().out == b"a\x1b\x80\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    terminal.say_path(Path("a\x1b\n"))
    assert capsysbinary.readouterr().out == b"a\\x1b\\n\n"


def test_log_records_and_tracebacks_are_escaped():
    try:
        raise ValueError("x\x1b\ny")
    except ValueError:
        record = logging.LogRecord("n", 30, "", 1, "about %s", ("a\x1b\nWARNING b",), sys.exc_info())
    text = terminal.Formatter("%(levelname)s %(message)s").format(record)
    assert "\x1b" not in text and text.count(r"\x1b") == 3  # in the source line, too
    assert all(line.startswith("  ") for line in text.split("\n")[1:])


@pytest.mark.parametrize(
    "arguments", [["convert", "cub", "x\x1b[2J\u202e"], ["cut\x1b[2J"], ["models", "x\x1b"], ["cut", "--\x1b[2J"]]
)
def test_usage_errors_are_escaped(arguments):
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2 and r"\x1b" in done.stderr
    assert "\x1b" not in done.output and "\u202e" not in done.output


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            RecursionError("deep\x1b"),
            r"internal error in fgfast.*, line \d+: RecursionError: deep\\x1b\n  Please report",
        ),
        (OverflowError(), r"internal error in fgfast.*, line \d+: OverflowError\n  Please report"),
        (MemoryError(), "error: there is not enough memory"),
        (OSError(28, "No space left on device", "a\x1b"), r"error: \[Errno 28\] No space left on device: 'a\\x1b'"),
    ],
)
def test_no_error_is_a_traceback(error, text, monkeypatch):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr("fgfast.pipeline.verify.verify", fail)
    done = CliRunner().invoke(main, ["verify", "x"])
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit)
    assert re.match(f"(error: )?{text}", done.stderr), done.stderr
    assert "Traceback" not in done.output


def test_a_traceback_is_there_for_who_asks(monkeypatch):
    def fail(*arguments, **options):
        raise KeyError("odd\x1b")

    monkeypatch.setattr("fgfast.pipeline.verify.verify", fail)
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with pytest.raises(SystemExit), pytest.MonkeyPatch.context():
        main(["-vv", "verify", "x"])
    logging.basicConfig(force=True)
    assert "Traceback" in stream.getvalue() and "\x1b" not in stream.getvalue()


def test_a_closed_pipe_is_no_error(monkeypatch):
    @click.command()
    def command():
        raise BrokenPipeError(32, "Broken pipe")

    group = frame.Commands()
    group.add_command(command)
    done = CliRunner().invoke(group, ["command"])
    assert done.exit_code == 1 and "error" not in done.output
