"""What is said beforehand, at the end and in the report where masks will be bad, with the way out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from layouts import BUILDERS, SUBJECT, make_image

from fgfast.cli import console
from fgfast.config import Settings
from fgfast.datasets import open_dataset
from fgfast.models.files import weights
from fgfast.pipeline.choices import warnings
from fgfast.pipeline.plan import make_plan
from fgfast.pipeline.resume import Changes
from fgfast.pipeline.run import Report


def folder(root: Path, images: int, boxes: int) -> Path:
    lines = ["path,x0,y0,x1,y1"]
    for n in range(images):
        make_image(root / "ant" / f"{n}.jpg", n)
        lines += [f"ant/{n}.jpg,{','.join(map(str, SUBJECT))}"] if n < boxes else []
    if boxes:
        (root / "boxes.csv").write_text("\n".join(lines) + "\n")
    return root


def warned(root: Path, name: str = "folder", **settings: str) -> str:
    dataset = open_dataset(name, root)
    return " ".join(warnings(dataset, Settings(**settings), dataset.samples))  # type: ignore[arg-type]


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "find", lambda name: None)


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize("segmenter", ["grabcut", "sam_vit_b", "box"])
def test_the_middle_of_every_image_is_warned_about_whatever_segments_it(segmenter: str, tmp_path: Path) -> None:
    said = warned(folder(tmp_path, 3, 0), detector="center", segmenter=segmenter)
    assert "the middle of every image" in said
    assert "many wrong masks, with and without flags" in said
    assert "boxes.csv" in said
    assert "fgfast models pull detic, then --detector detic --vocabulary WORDS" in said
    assert "--segmenter annotations" in said


@pytest.mark.usefixtures("no_weights")
def test_auto_that_falls_to_the_middle_is_warned_about(tmp_path: Path) -> None:
    plan = make_plan("folder", tmp_path / "out", root=folder(tmp_path / "in", 3, 0), measure=False)
    assert (plan.settings.detector, plan.settings.segmenter) == ("center", "grabcut")
    (warning,) = plan.warnings
    assert f"  warning: {warning}" in console.describe_plan(plan)
    assert warning in console.plan_json(plan, console.Expected(3, None))


def test_boxes_that_the_data_set_has_are_the_way_out(tmp_path: Path) -> None:
    said = warned(BUILDERS["cub"](tmp_path), "cub", detector="center")
    assert "the data set's own boxes, for 4 images (--detector annotations)" in said
    assert "boxes.csv" not in said
    assert "--vocabulary" not in said  # birds


def test_cached_weights_need_no_pull(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "find", lambda name: tmp_path)
    said = warned(folder(tmp_path, 3, 0), detector="center")
    assert "(--detector detic --vocabulary WORDS)" in said


def test_images_without_a_box_among_others_are_counted(tmp_path: Path) -> None:
    said = warned(folder(tmp_path, 5, 2), detector="annotations")
    assert said.startswith("3 of 5 images have no box, ")
    assert "flagged 'no box'" in said
    assert "boxes.csv" in said


@pytest.mark.parametrize("detector", ["annotations", "detic", "grounding_dino_tiny"])
def test_boxes_of_every_image_or_a_model_are_no_reason_to_warn(detector: str, tmp_path: Path) -> None:
    assert warned(folder(tmp_path, 3, 3), detector=detector) == ""


def report(root: Path, warnings: tuple[str, ...] = (), stopped: bool = False, **counts: int) -> Report:
    all_counts = {"done": 5, "flagged": 0, "skipped": 0, "failed": 0} | counts
    html = root / "fgfast" / "report.html"
    numbers = (9, all_counts, {}, {}, 0, 1.0)
    return Report(root, root / "twin", html, "twin = 1", *numbers, stopped=stopped, warnings=warnings)  # type: ignore[arg-type]


def test_the_summary_ends_with_the_warning_and_with_every_next_step(tmp_path: Path) -> None:
    text = console.summary(report(tmp_path, ("boxes are guesses",), flagged=1204, failed=1))
    assert "\nWarning: boxes are guesses\n" in text
    steps = text.partition("\nNext:   ")[2].split("\n        ")
    assert len(steps) == 2
    assert steps[0].startswith(f"repair or replace the 1 failed image (listed in {tmp_path / 'fgfast' / 'failed.csv'})")
    assert steps[1].startswith("look at the 1,204 flagged images, and mend them: fgfast review ")
    assert str(tmp_path / "fgfast" / "flagged.csv") in steps[1]
    assert "--exclude FILE" in steps[1]


def test_the_summary_does_not_repeat_what_was_told_while_the_run_went_on(tmp_path: Path) -> None:
    keys = tuple(f"{n}.jpg" for n in range(1000))
    found = replace(report(tmp_path), changes=Changes(decided=keys, damaged=("a.jpg",)))
    decided, damaged = sorted(found.changes.messages(), key=len, reverse=True)
    assert decided == "made from decisions of people: 1,000 (0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg and 995 more)"
    assert decided in console.summary(found) and damaged in console.summary(found)
    text = console.summary(found, told=[decided])
    assert decided not in text and damaged in text


def test_the_summary_of_a_good_run_warns_of_nothing(tmp_path: Path) -> None:
    text = console.summary(report(tmp_path))
    assert "Warning" not in text
    assert text.endswith("\nNext:   load the twin with the line above")
    assert console.summary(report(tmp_path, stopped=True, flagged=1)).endswith("the same command again to resume")
