"""Names of an expansion's files: each belongs to one sample, whatever else the data set holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgfast.expand.names import Claimed, Names
from fgfast.io.ledger_queries import Row

KEYS = ["a/x.jpg", "a/x.bmp", "a/y.jpg", "a/y/z.png", "b.png", "b.png.jpg", "c.v1.jpg"]


def names(keys: list[str] = KEYS, below: str = "") -> Names:
    return Names(keys, ["one/set", "two"], {"svg": ".svg"}, ["parts"], format="png", keep_names=False, below=below)


def row(key: str, *paths: str) -> Row:
    return Row(key, "done", "x", None, b"", dict.fromkeys(paths))  # type: ignore[arg-type]


def test_no_two_samples_share_a_path() -> None:
    found = names()
    paths = [path for key in KEYS for path in (*found.fixed(key), found.several("parts", key))]
    assert len(paths) == len({path.lower() for path in paths})
    assert found.several("parts", "c.v1.jpg", "beak.png") == "parts/c.v1/beak.png"
    assert found.several("parts", "a/x.jpg") == "parts/a/x.jpg"  # a/x.bmp is there, too
    assert found.several("parts", "a/y.jpg") == "parts/a/y.jpg"  # a/y is a folder
    assert found.top == ("one", "two", "svg", "parts")


def test_a_path_has_its_owner_and_strangers_have_none() -> None:
    found = names()
    for key in KEYS:
        assert all(found.owner(path) == key for path in found.fixed(key))
        assert found.owner(found.several("parts", key, "1.png")) == key
    for path in (
        "one/set/q.png",
        "parts/q/1.png",
        "../one/set/b.png",
        "/etc/passwd",
        "one/set/../../b.png",
        "fgfast/x",
    ):
        assert found.owner(path) is None
    claimed = Claimed(found, {"b.png"})
    assert "svg/b.svg" in claimed or found.file("svg", "b.png") in claimed
    assert found.image("two", "a/x.jpg") not in claimed and "nothing" not in claimed


def test_what_a_row_may_hold() -> None:
    found = names()
    assert found.writes(row("b.png", *found.fixed("b.png"), found.several("parts", "b.png", "1.png")))
    assert not found.writes(row("b.png", found.image("two", "a/x.jpg")))


def test_a_folder_of_the_keys_is_left_out_of_images_alone() -> None:
    found = names(["images/a.jpg", "images/b.jpg"], below="images")
    assert found.image("two", "images/a.jpg") == "two/a.png" and found.file("svg", "images/a.jpg") == "svg/images/a.svg"
    assert found.owner("two/a.png") == "images/a.jpg"


@given(st.lists(st.sampled_from(["a", "b", "a/b", "a.b", "b.a", "a/b.a", "a.b/a"]), unique=True, min_size=1))
def test_folders_of_several_files_never_meet(keys: list[str]) -> None:
    found = names(keys)
    stems = [found.several("parts", key) for key in keys]
    assert len(set(stems)) == len(stems)
    assert all(found.owner(f"{stem}/1.png") == key for stem, key in zip(stems, keys, strict=True))


def test_formats() -> None:
    kept = Names(["a.jpg"], ["set"], {}, [], format="png", keep_names=True)
    assert kept.image("set", "a.jpg") == "set/a.jpg"
    with pytest.raises(KeyError):
        kept.image("set", "b.jpg")
