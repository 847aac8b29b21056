"""What the README and docs/ say is true: their Python runs, their commands exist, their links lead somewhere."""

from __future__ import annotations

import ast
import dataclasses
import doctest
import importlib
import importlib.util
import io
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tarfile
import types
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import pytest
from layouts import cub, make_image
from PIL import Image

import fgfast
from fgfast import cli, datasets, methods
from fgfast.expand.kind import Kind
from fgfast.expand.table import KINDS
from fgfast.export.exportable import EXPORTABLE

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")] + sorted(DOCS.rglob("*.md"))

if not DOCS.is_dir():
    pytest.skip("docs/ is not here (it is left out of source distributions)", allow_module_level=True)

by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


class Block(NamedTuple):
    """A fenced block: its language, the line it begins on, its text."""

    language: str
    line: int
    text: str


def read(page: Path) -> str:
    """The page, with what it includes in place of the inclusion."""
    text = page.read_text(encoding="utf-8")
    return re.sub(r'^--8<-- "(.+)"$', lambda match: (ROOT / match[1]).read_text(encoding="utf-8"), text, flags=re.M)


def blocks(page: Path, *languages: str) -> list[Block]:
    found = []
    for match in re.finditer(r"^```(\w*)[^\n]*\n(.*?)^```$", read(page), flags=re.M | re.S):
        if match[1] in languages:
            found.append(Block(match[1], read(page)[: match.start()].count("\n") + 2, match[2]))
    return found


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", read(page), flags=re.M | re.S)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that examples run in: ./data/CUB_200_2011 and ./bird.jpg."""
    cub(tmp_path / "data")
    pixels = np.random.default_rng(0).integers(0, 90, (300, 400, 3), dtype=np.uint8)
    pixels[80:220, 120:280] = (230, 90, 40)
    Image.fromarray(pixels).save(tmp_path / "bird.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FGFAST_DATA", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    "page", [p for p in PAGES if blocks(p, "python")], ids=lambda page: str(page.relative_to(ROOT))
)
def test_python_of_a_page_runs(page: Path, workplace: Path) -> None:
    names: dict[str, object] = {"__name__": page.stem}
    for block in blocks(page, "python"):
        # Blank lines in front, so that a traceback names the page's own line.
        exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), names)
    assert len(names) > 1, f"{page} defines nothing, so nothing of it ran"


def searched_modules() -> Iterator[str]:
    for file in sorted((ROOT / "fgfast").rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        if parts[-1] != "__main__":  # importing it runs the command line
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_examples_in_docstrings_run(workplace: Path) -> None:
    tried = 0
    triton = importlib.util.find_spec("triton")  # comes with PyTorch's CUDA builds only, and imports at a kernel's top
    for name in searched_modules():
        if name == "fgfast.models.sam.fused_attention" and triton is None:
            continue
        result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
        assert not result.failed, f"examples of {name}; see the output above"
        tried += result.attempted
    assert tried > 0


def commands(group: click.Group, path: str = "fgfast") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        yield f"{path} {name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")


COMMANDS = list(commands(cli.main))


VERBOSE = {"-v", "--verbose"}  # of all commands, described before them


def options(command: click.Command) -> set[str]:
    return {o for p in command.params if isinstance(p, click.Option) for o in (*p.opts, *p.secondary_opts)}


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_every_command_and_option_is_described(name: str, command: click.Command) -> None:
    reference = read(DOCS / "cli.md")
    heading = re.search(rf"^#+ {re.escape(name)}$", reference, flags=re.M)
    assert heading, f"docs/cli.md has no heading {name!r}"
    own = reference[heading.end() :]
    end = re.search(r"^#+ ", own, flags=re.M)
    section = read(DOCS / "convert.md") if name == "fgfast convert" else own[: end.start() if end else None]
    known = options(command) - VERBOSE if name != "fgfast expand" else options_of_every_kind()
    absent = [option for option in known if not re.search(rf"`{re.escape(option)}\b", section)]
    assert not absent, f"{name}: not described: {', '.join(absent)}"
    described = set(re.findall(r"^\| `(--[\w-]+)", section, flags=re.M))
    assert described <= known, f"{name} has no {', '.join(described - known)}"


def options_of_every_kind() -> set[str]:
    kinds = cli.main.commands["expand"]
    assert isinstance(kinds, click.Group)
    found = [kinds.get_command(click.Context(kinds), name) for name in kinds.list_commands(click.Context(kinds))]
    return set.intersection(*(options(command) for command in found if command is not None)) - VERBOSE


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_kind_of_expansion_has_a_page_with_its_options(kind: Kind) -> None:
    kinds = cli.main.commands["expand"]
    assert isinstance(kinds, click.Group)
    command = kinds.get_command(click.Context(kinds), kind.name)
    assert command is not None
    page = read(DOCS / "expand" / f"{kind.name}.md")
    own = options(command) - options_of_every_kind() - VERBOSE
    absent = [option for option in own if not re.search(rf"`{re.escape(option)}\b", page)]
    assert not absent, f"{kind.name}: not described: {', '.join(absent)}"
    described = set(re.findall(r"^\| `(--[\w-]+)", page, flags=re.M))
    assert described <= own, f"{kind.name} has no {', '.join(described - own)}"


def test_names_that_can_be_chosen_are_described() -> None:
    sets = read(DOCS / "datasets.md")
    absent = [name for name in datasets.names() if f"\n## {name}\n" not in sets]
    absent += [name for name in EXPORTABLE if f"`{name}`" not in read(DOCS / "cli.md")]
    assert not absent


@by_page
def test_tables_are_those_of_the_code(page: Path) -> None:
    spec = importlib.util.spec_from_file_location("tables", DOCS / "tables.py")
    assert spec is not None and spec.loader is not None
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    assert tables.with_tables(read(page)) == read(page), "run python docs/tables.py"


def test_every_reason_is_described() -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "fgfast").rglob("*.py"))
    reasons = set(re.findall(r'Image\w+Error\(\s*"([^"]+)"', sources)) | {"truncated", "broken", "internal error"}
    flags = (ROOT / "fgfast/ops/flags.py").read_text(encoding="utf-8")
    reasons |= set(re.findall(r'found\["([^"]+)"\] =', flags)) | {"empty", "no box"}
    assert len(reasons) >= 16
    described = read(DOCS / "failures.md")
    assert not [reason for reason in reasons if f"| `{reason}` |" not in described]


def shell_lines(page: Path) -> Iterator[list[str]]:
    for block in blocks(page, "bash"):
        for line in block.text.splitlines():
            if line.startswith(("fgfast ", "make ")):
                yield shlex.split(line, comments=True)


@by_page
def test_commands_of_a_page_exist(page: Path) -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M)
    for program, *words in shell_lines(page):
        if program == "make":
            assert set(words) <= set(targets)
            continue
        command: click.Command = cli.main
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            if command is cli.main.commands["expand"]:  # the run comes first
                words = words[1:]
            name, *words = words
            found = command.get_command(click.Context(command), name)
            assert found is not None, f"fgfast has no command {name!r}"
            command = found
        unknown = {word.partition("=")[0] for word in words if re.match("--?[a-z]", word)} - options(command)
        assert not unknown - {"-vv"}, f"{command.name} has no {', '.join(unknown)}"
    for target in re.findall(r"`make (\w+)`", prose(page)):
        assert target in targets


def anchors(page: Path) -> set[str]:
    """Of the page's headings, as both GitHub and Python-Markdown make them of plain words."""
    headings = re.findall(r"^#+ (.+)$", prose(page), flags=re.M)
    return {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}


@by_page
def test_links_within_the_documentation_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.is_file(), f"{page.name}: {target}"
        # Anchors of objects, such as #fgfast.errors.FgfastError, are made by mkdocstrings.
        if anchor and not anchor.startswith("fgfast."):
            assert anchor in anchors(file), f"{page.name}: {target}; {file.name} has {', '.join(sorted(anchors(file)))}"


def test_every_page_is_in_the_menu() -> None:
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert not [page.name for page in DOCS.rglob("*.md") if f": {page.relative_to(DOCS).as_posix()}\n" not in menu]


def test_the_segmenter_in_contributing_is_one_diff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (diff,) = blocks(ROOT / "CONTRIBUTING.md", "diff")
    (tmp_path / "fgfast").mkdir()
    shutil.copy(ROOT / "fgfast/methods.py", tmp_path / "fgfast")
    subprocess.run(["git", "apply", "--whitespace=error"], input=diff.text.encode(), cwd=tmp_path, check=True)
    module = types.ModuleType("fgfast.models.ellipse")
    exec((tmp_path / "fgfast/models/ellipse.py").read_text(encoding="utf-8"), module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    table = runpy.run_path(str(tmp_path / "fgfast/methods.py"))["METHODS"]
    entry = methods.Method(**dataclasses.asdict(next(method for method in table if method.name == "ellipse")))
    monkeypatch.setattr(methods, "METHODS", (*methods.METHODS, entry))
    pixels = np.full((40, 60, 3), 9, np.uint8)
    cutout = fgfast.cut_out(pixels, (10, 10, 50, 30), settings=fgfast.Settings(segmenter="ellipse"))
    assert cutout.mask.bits.sum() == pytest.approx(np.pi * 20 * 10, rel=0.02)


def test_the_public_names_are_those_of_the_python_page() -> None:
    page = read(DOCS / "api.md")
    table = set(re.findall(r"`fgfast\.(\w+)`", "\n".join(re.findall(r"^\| (`fgfast\..*?) \|", page, flags=re.M))))
    assert table == set(dir(fgfast)) == set(fgfast.__all__)
    homes = {name: getattr(fgfast, name) for name in dir(fgfast) if name != "__version__"}
    for name, found in homes.items():
        assert found.__name__ == name
        assert found.__doc__ and (f"::: {found.__module__}.{name}\n" in page or name == "FgfastError"), name
    assert not hasattr(fgfast, "no_such_name")


def environment_variables() -> set[str]:
    """The names of environment variables in modules that read or set any, without attributes of modules."""
    found: set[str] = set()
    for file in (ROOT / "fgfast").rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        if "environ" not in text and "switched_on" not in text:
            continue
        tree = ast.parse(text)
        attributes = {
            id(node.args[1])
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "getattr"
        }
        found |= {
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in attributes
            if re.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+_?", node.value)
        }
    return found


def test_every_environment_variable_is_described_and_every_described_one_exists() -> None:
    rows = re.findall(r"^\| (`_?[A-Z][^|]*`) \|", read(DOCS / "cli.md"), flags=re.M)
    described = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    read_ones = environment_variables()
    assert {"FGFAST_DATA", "FGFAST_CACHE", "HF_HOME", "XDG_CACHE_HOME"} <= read_ones
    assert not read_ones - described
    others = {
        "FGFAST_ATTENTION": ROOT / "engine/src/attention_bf16.cc",
        "FGFAST_REQUIRE_NATIVE": ROOT / "Makefile",
        "FGFAST_FUZZ_EXAMPLES": ROOT / "Makefile",
        "XDG_STATE_HOME": ROOT / "fgfast/keyed_notes.py",  # read by platformdirs
        "_FGFAST_COMPLETE": ROOT / "fgfast/cli/__init__.py",
    }
    assert described - read_ones == set(others)
    assert all(name in file.read_text(encoding="utf-8") for name, file in others.items())


def test_whatever_is_used_can_be_cited() -> None:
    page = read(DOCS / "citing.md")
    for method in methods.METHODS:
        year = method.source.rpartition(" ")[2]
        assert not method.source or (year in page and method.source.partition(" ")[0] in page), method.name
    assert not [name for name in datasets.names() if name != "folder" and f"| `{name}` |" not in page]


def test_the_shards_of_a_web_data_set_become_class_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (program,) = [block.text for block in blocks(DOCS / "setups.md", "py") if "tarfile" in block.text]
    image = make_image(tmp_path / "x.png").read_bytes()
    (tmp_path / "shards").mkdir()
    for shard in ("000", "001"):
        with tarfile.open(tmp_path / "shards" / f"{shard}.tar", "w") as archive:
            for name, data in (
                ("a.png", image),
                ("a.cls", b"3\n"),
                ("b.json", b"{}"),
                ("b.png", image),
                ("b.cls", b"cat"),
            ):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    monkeypatch.chdir(tmp_path)
    exec(compile(program, "setups.md", "exec"), {})
    opened = datasets.open_dataset("images")
    assert sorted(sample.key for sample in opened.samples) == [
        *("train/3/000-a.png", "train/3/001-a.png", "train/cat/000-b.png", "train/cat/001-b.png"),
    ]
    assert opened.samples[0].path.read_bytes() == image


def test_what_holds_each_promise_about_files_from_others_exists() -> None:
    rows = [
        row
        for row in read(DOCS / "reliability.md").splitlines()
        if re.match(r"\| (be|name|contain|hold|have|lie|say|come|resume)\b", row)
    ]
    named = {row: re.findall(r"`((?:unit|e2e)/test_\w+\.py)`", row) for row in rows}
    assert len(rows) > 20 and all(named.values())
    assert all((ROOT / "tests" / name).is_file() for names in named.values() for name in names)
