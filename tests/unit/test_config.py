from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from fgfast.background import IMAGENET_MEAN, Background
from fgfast.config import Selection, Settings, differences, resolved
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
    ("text", "colour"),
    [
        ("red", (255, 0, 0)),
        ("Navy", (0, 0, 128)),
        ("#ff0000", (255, 0, 0)),
        ("#0f0", (0, 255, 0)),
        ("rgb(1, 2, 3)", (1, 2, 3)),
        ("hsl(240, 100%, 50%)", (0, 0, 255)),
    ],
)
def test_colours_of_css(text: str, colour: tuple[int, int, int]) -> None:
    assert Background.parse(text) == Background(colour=colour)


@pytest.mark.parametrize(("text", "says"), [("#ff000080", "alpha"), ("#ff00", "alpha"), ("#ggg", "#rrggbb")])
def test_colours_with_alpha_or_mistakes_are_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Background.parse(text)


def test_a_file_named_like_a_colour_is_reached_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("snow").write_bytes(b"an image")
    assert Background.parse("snow").kind == "colour"
    assert Background.parse("./snow").kind == "image"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"kind": "blur", "colour": (1, 2, 3)}, "no effect"),
        ({"kind": "image"}, "needs path"),
        ({"kind": "blur", "path": Path("x.png")}, "has no path"),
        ({"kind": "blurr"}, "Did you mean 'blur'"),
        ({"kind": "navy"}, r"fgfast\.Background\.parse\('navy'\), or Settings\(background='navy'\)"),
    ],
)
def test_a_background_holds_only_what_its_kind_uses(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Background(**options)


def test_jpg_is_jpeg() -> None:
    assert Settings(format="jpg") == Settings(format="jpeg")


GRABCUT = {"detector": "center", "segmenter": "grabcut"}


@pytest.mark.parametrize(
    "options",
    [
        {"quality": 80, "format": "png"},
        {"pad": 0.1},
        {"keep_names": True},
        {"vocabulary": "bird", "detector": "annotations"},
        {"vocabulary": "bird", "detector": "center", "segmenter": "sam"},
        {"precision": "bf16", **GRABCUT},
        {"batch": 4, **GRABCUT},
        {"model_threads": 2, **GRABCUT},
        {"backend": "onnxruntime", **GRABCUT},
        {"model_weights": "sam.pth", **GRABCUT},
        {"devices": "cuda:0,cuda:1", **GRABCUT},
        {"placement": "replicate", "detector": "detic", "segmenter": "box"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_a_setting_without_effect_is_an_error_that_names_it(options: dict[str, Any]) -> None:
    name = next(iter(options)).replace("_", "-")
    with pytest.raises(UsageError, match=rf"^{name}.* has no effect "):
        Settings(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"quality": 80},
        {"quality": 95, "format": "png"},
        {"vocabulary": "bird"},
        {"vocabulary": "bird", "detector": "grounding_dino_tiny"},
        {"precision": "bf16", "segmenter": "grabcut"},
        {"devices": "cpu,cpu", **GRABCUT},
        {"devices": "cuda:0", "decoder": "nvjpeg", **GRABCUT},
        {"batch": 4, "detector": "annotations", "segmenter": "sam"},
    ],
    ids=str,
)
def test_a_setting_that_has_an_effect_or_may_have_one_is_none(options: dict[str, Any]) -> None:
    settings = Settings(**options)
    assert all(getattr(settings, name) == value for name, value in options.items() if name != "devices")


def test_what_auto_makes_idle_returns_to_its_default_and_is_said() -> None:
    asked = Settings(precision="bf16", batch=3, segmenter="box", crop="box", pad=0.1)
    settings, idle = resolved(asked, detector="center")
    assert settings == Settings(detector="center", segmenter="box", crop="box", pad=0.1)
    assert sorted(idle) == ["batch", "precision"]


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
        ({"quality": True}, "whole number"),
        ({"pad": True, "crop": "box"}, "number from 0"),
        ({"batch": True, "segmenter": "sam"}, "whole number"),
        ({"model_threads": True, "segmenter": "sam"}, "whole number"),
        ({"keep_names": True}, "no effect"),
    ],
)
def test_bad_settings_are_refused_with_the_way_out(options: dict, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Settings(**options)


def test_a_background_may_be_given_in_words() -> None:
    assert Settings(background="white").fill.colour == (255, 255, 255)
    assert Settings(background=(1, 2, 3)).fill.colour == (1, 2, 3)


def test_a_boolean_is_no_limit() -> None:
    with pytest.raises(UsageError, match="limit must be a whole number"):
        Selection(limit=True)


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
