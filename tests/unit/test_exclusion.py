"""--exclude: lists of keys, tables of earlier runs, and what is said about a line that names no image."""

from __future__ import annotations

import csv
import random
import unicodedata
from pathlib import Path

import pytest
from layouts import make_image

from fgfast.config import Selection
from fgfast.datasets import open_dataset
from fgfast.errors import UsageError
from fgfast.pipeline.exclusion import read_excluded
from fgfast.pipeline.plan import select

KEYS = [f"{name}/{n:03}.jpg" for name in ("ant", "bee", "a, b", 'say "cheese"', "key") for n in range(6)]
KEYS += ["key.jpg", "caf\u00e9.jpg", "an end .jpg"]


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_list_of_keys(ending: str, encoding: str, tmp_path: Path) -> None:
    chosen = random.Random(3).sample(KEYS, 9)
    file = write(tmp_path / "keys.txt", ending.join([*chosen[:4], "", *chosen[4:], ""]), encoding)
    assert read_excluded([file], KEYS) == set(chosen)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_whatever_its_columns_and_separator(separator: str, tmp_path: Path) -> None:
    chosen = random.Random(4).sample(KEYS, 9)
    file = tmp_path / "flagged.csv"
    with file.open("w", newline="", encoding="utf-8") as lines:
        rows = csv.writer(lines, delimiter=separator)
        rows.writerow(["class", "key", "detail"])
        rows.writerows(["ant", key, "two\nlines, and more"] for key in chosen)
    assert read_excluded([file], KEYS) == set(chosen)


def test_several_files_add_up_and_an_empty_one_excludes_nothing(tmp_path: Path) -> None:
    first = write(tmp_path / "1.txt", f"{KEYS[0]}\n")
    second = write(tmp_path / "2.csv", f"key,twin\n{KEYS[1]},x\n")
    empty = write(tmp_path / "3.csv", "key,twin,reasons\n")
    assert read_excluded([first, second, empty, write(tmp_path / "4.txt", "")], KEYS) == {KEYS[0], KEYS[1]}


def test_the_same_name_written_otherwise_is_the_same_key(tmp_path: Path) -> None:
    lines = [unicodedata.normalize("NFD", "caf\u00e9.jpg"), "ant\\003.jpg", "./bee/001.jpg", " key.jpg "]
    file = write(tmp_path / "keys.txt", "\n".join(lines))
    assert read_excluded([file], KEYS) == {"caf\u00e9.jpg", "ant/003.jpg", "bee/001.jpg", "key.jpg"}


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("ant/001.jpg\nant/999.jpg\n", 2, "'ant/999.jpg'"),
        ("\n\n001.jpg\n", 3, "Did you mean 'a, b/001.jpg' or 'ant/001.jpg' or 'bee/001.jpg'?"),
        ('key,detail\nant/001.jpg,"two\nlines"\ncat/1.jpg,\n', 4, "'cat/1.jpg'"),
        ("twin,key\nant/001.png\n", 2, "no 'key'"),
        ("path,x0\nant/001.jpg,3\n", 1, "'path,x0'"),
    ],
)
def test_a_line_that_names_no_image_is_named(text: str, line: int, says: str, tmp_path: Path) -> None:
    file = write(tmp_path / "keys.txt", text)
    with pytest.raises(UsageError) as caught:
        read_excluded([file], KEYS)
    assert str(caught.value).startswith(f"{file}:{line}: ")
    assert says in str(caught.value)


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone\.txt cannot be read: No such file"):
        read_excluded([tmp_path / "gone.txt"], KEYS)
    with pytest.raises(UsageError, match="not UTF-8 text"):
        read_excluded([write(tmp_path / "wide.txt", "ant/001.jpg\n", "utf-16")], KEYS)
    with pytest.raises(UsageError, match="cannot be read"):
        read_excluded([tmp_path], KEYS)


def test_excluded_samples_are_no_part_of_the_selection_and_the_limit_spreads_over_the_rest(tmp_path: Path) -> None:
    for n in range(10):
        make_image(tmp_path / "set" / ("ant" if n < 6 else "bee") / f"{n}.jpg")
    dataset = open_dataset("folder", tmp_path / "set")
    keys = [sample.key for sample in dataset.samples]
    file = write(tmp_path / "keys.txt", "\n".join(keys[::2]))
    for exclude in (str(file), file, [file], (str(file),)):  # kept as text, which run.json can hold
        assert Selection(exclude=exclude).exclude == (str(file),)  # type: ignore[arg-type]
    half = read_excluded([file], keys)
    assert select(dataset, Selection(), half) == (1, 3, 5, 7, 9)
    assert select(dataset, Selection(classes=("bee",)), half) == (7, 9)
    assert select(dataset, Selection(limit=2), half) == (1, 5)
    with pytest.raises(UsageError, match="10 in all, of which 10 are excluded"):
        select(dataset, Selection(), frozenset(keys))
