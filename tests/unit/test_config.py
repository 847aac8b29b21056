from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from fgfast.config import IMAGENET_MEAN, Background, Selection, Settings, differences
from fgfast.errors import UnknownNameError, UsageError


@pytest.mark.parametrize(
    ("text", "colour"),
    [("black", (0, 0, 0)), ("white", (255, 255, 255)), ("mean", IMAGENET_MEAN), ("1, 2,3", (1, 2, 3))],
)
def test_colours(text: str, colour: tuple[int, int, int]) -> None:
    assert Background.parse(text) == Background(colour=colour)


def test_a_image_is_known_by_its_content(tmp_path: Path) -> None:
    for name, content in (("a.png", b"one"), ("b.png", b"two")):
        (tmp_path / name).write_bytes(content)
    one, two = (Background.parse(str(tmp_path / name)) for name in ("a.png", "b.png"))
    assert one.kind == "image"
    assert one.digest != two.digest
    assert one.digest[:16] in one.describe()


@pytest.mark.parametrize("text", ["1,2", "1,2,300", "a,b,c", "blakc", "no/such/file.png"])
def test_bad_backgrounds_are_refused_with_the_value(text: str) -> None:
    with pytest.raises(UsageError, match=text):
        Background.parse(text)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"segmenter": "grabcutt"}, "Did you mean 'grabcut'"),
        ({"format": "gif"}, "jpeg, png, same, webp"),
        ({"quality": 0}, "from 1 to 100"),
        ({"pad": 0.1}, "--crop"),
        ({"pad": -1.0, "crop": "box"}, "from 0 to 10"),
        ({"pad": float("nan"), "crop": "box"}, "from 0 to 10"),
        ({"pad": float("inf"), "crop": "box"}, "from 0 to 10"),
        ({"background": 7}, "a name, a colour"),
        ({"background": (1, 2, 300)}, "0 to 255"),
        ({"quality": 90.5}, "whole number"),
        ({"keep_names": True}, "no effect"),
    ],
)
def test_bad_settings_are_refused_with_the_way_out(options: dict, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Settings(**options)


def test_a_background_may_be_given_in_words() -> None:
    assert Settings(background="white").fill.colour == (255, 255, 255)
    assert Settings(background=(1, 2, 3)).fill.colour == (1, 2, 3)


def test_one_name_is_not_its_letters() -> None:
    assert Selection(splits="train").splits == ("train",)


def test_misspelt_names_raise_the_error_with_suggestions() -> None:
    with pytest.raises(UnknownNameError, match="Known: annotations, auto, center"):
        Settings(detector="detick")


def test_limit_is_positive() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        Selection(limit=0)


def test_differences_name_each_setting() -> None:
    old, new = Settings().describe(), Settings(background="white", quality=90).describe()
    assert differences(old, new) == ["background: 'black' -> 'white'", "quality: 95 -> 90"]
    assert differences(old, Settings().describe()) == []


def test_settings_travel_between_processes() -> None:
    assert pickle.loads(pickle.dumps(Settings(crop="box", pad=0.2))) == Settings(crop="box", pad=0.2)
