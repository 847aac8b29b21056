"""Measures the masks of GrabCut against ground truth.

A folder holds sets: <set>/images, <set>/masks (PNG: 255 subject, 0 background, 128 ignored) and <set>/boxes.csv
(image, mask, box_kind, x1, y1, x2, y2; x2 and y2 exclusive). One run measures fgfast's GrabCut, plain cv2.grabCut at
400 px, and the box itself, side by side. The masks of an image with several boxes are united before they are compared.

With --flags it also measures how well two flags find wrong masks: "short of the box" those of an IoU below 0.7, "cut
off by the box" those whose box leaves a part of the subject out. Photographs with one box are segmented with that box
and with boxes moved on purpose, and with the centre of the image, which is counted apart.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from fgfast.bench.flagging import Case, counted, cross_validated, moved_boxes
from fgfast.bench.stamp import stamp
from fgfast.bench.text import columns
from fgfast.datasets.csv_files import read_csv
from fgfast.models.grabcut import segment
from fgfast.ops.flags import CUT_FROM, SHORT_FROM, flags, side_gap, straight_edge
from fgfast.ops.overlap import iou
from fgfast.pipeline.prompt import center_box
from fgfast.records import Bool, Float32, Size, UInt8
from fgfast.terminal import say
from fgfast.writing import Target, write_file

Segmenter = Callable[[UInt8, Float32], Bool]

SUBJECT, IGNORED = 255, 128
PLAIN_SIDE = 400  # px; the usual working size of plain GrabCut
PLAIN_ROUNDS = 5  # the usual number of rounds of GrabCut


@dataclass(frozen=True)
class Photo:
    """An image with its ground truth.

    Attributes:
        group: the set, and the kind of its boxes if it has two.
        name: the path of the image below the set's folder.
        pixels: (H, W, 3) uint8 RGB.
        truth: (H, W) uint8: 255 subject, 0 background, 128 ignored.
        boxes: (N, 4) float32 x0 y0 x1 y1 in pixels.
    """

    group: str
    name: str
    pixels: UInt8
    truth: UInt8
    boxes: Float32


def photos(root: Path) -> Iterator[Photo]:
    """Yield the images of every set below `root`; two kinds of boxes (loose, tight) make two groups."""
    import cv2

    for table in sorted(root.glob("*/boxes.csv")):
        rows = [row for _, row in read_csv(table, ("image", "mask", "box_kind"))]
        kinds = {row["box_kind"] for row in rows}
        for kind in sorted(kinds):
            group = table.parent.name + ("" if len(kinds) == 1 else " tight" if "tight" in kind else " loose")
            mine = [row for row in rows if row["box_kind"] == kind]
            for image, mask in sorted({(row["image"], row["mask"]) for row in mine}):
                boxes = [[float(r[c]) for c in ("x1", "y1", "x2", "y2")] for r in mine if r["image"] == image]
                pixels = _read(table.parent / image, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
                truth = _read(table.parent / mask, cv2.IMREAD_GRAYSCALE)
                yield Photo(group, image, pixels, truth, np.array(boxes, np.float32))


def _read(path: Path, mode: int) -> UInt8:
    """Read an image file, as RGB unless it is grey."""
    import cv2

    pixels = cv2.imread(str(path), mode)
    if pixels is None:
        raise ValueError(f"{path} is named in boxes.csv and cannot be read as an image")
    return np.ascontiguousarray(pixels[..., ::-1] if pixels.ndim == 3 else pixels, np.uint8)


def box_alone(pixels: UInt8, box: Float32) -> Bool:
    """Return the box as a mask (H, W) bool."""
    mask = np.zeros(pixels.shape[:2], np.bool_)
    x0, y0, x1, y1 = (max(0, round(float(edge))) for edge in box)
    mask[y0:y1, x0:x1] = True
    return mask


def plain_grabcut(pixels: UInt8, box: Float32) -> Bool:
    """Run cv2.grabCut as its tutorial does: on the image at 400 px, with the rectangle, for five rounds."""
    import cv2

    height, width = pixels.shape[:2]
    scale = min(1, PLAIN_SIDE / max(height, width))
    small = cv2.resize(pixels, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
    x0, y0, x1, y1 = (max(0, round(float(edge) * scale)) for edge in box)
    rect = (x0, y0, min(x1, small.shape[1]) - x0, min(y1, small.shape[0]) - y0)
    labels, models = np.zeros(small.shape[:2], np.uint8), np.zeros((2, 1, 65))
    cv2.setRNGSeed(0)
    try:
        cv2.grabCut(small, labels, rect, models[0], models[1], PLAIN_ROUNDS, cv2.GC_INIT_WITH_RECT)
    except cv2.error:  # it raises where a box leaves no background
        return box_alone(pixels, box)
    mask: Bool = np.asarray(cv2.resize(labels & 1, (width, height), interpolation=cv2.INTER_NEAREST)) > 0
    return mask


SEGMENTERS: dict[str, Segmenter] = {"fgfast": segment, "plain": plain_grabcut, "box": box_alone}


def measure(root: Path) -> dict[str, dict[str, Any]]:
    """Segment every image of every set below `root` with every segmenter.

    Returns:
        group -> segmenter -> mean IoU, IoU of each image, median and longest CPU seconds per box.
    """
    figures: dict[str, dict[str, Any]] = {}
    for photo in photos(root):
        for name, segmenter in SEGMENTERS.items():
            entry = figures.setdefault(photo.group, {}).setdefault(name, {"iou": {}, "seconds": []})
            mask = np.zeros(photo.truth.shape, np.bool_)
            for box in photo.boxes:
                began = time.thread_time()
                mask |= segmenter(photo.pixels, box)
                entry["seconds"].append(time.thread_time() - began)
            counts = photo.truth != IGNORED
            entry["iou"][photo.name] = iou(mask & counts, photo.truth == SUBJECT)
    for entry in (entry for group in figures.values() for entry in group.values()):
        seconds = entry.pop("seconds")
        entry["mean_iou"] = statistics.fmean(entry["iou"].values())
        entry["median_s"], entry["max_s"] = statistics.median(seconds), max(seconds)
    return figures


FLAGGED_SEGMENTERS = ("fgfast", "plain")  # the box alone has no flags
WRONG_BELOW = 0.7  # IoU of a mask that "short of the box" should find
# The fraction of the subject outside the box from which its mask is cut off, and up to which it is not.
CUT_OFF_FROM, WHOLE_UP_TO = 0.03, 0.01


def measure_flags(root: Path) -> dict[str, Any]:
    """Segment every photograph with one box, with that box, moved ones and the centre, and judge the flags' numbers."""
    rows = [row for photo in photos(root) if len(photo.boxes) == 1 for row in _flag_rows(photo)]
    figures: dict[str, Any] = {"columns": ",".join(rows[0]), "rows": [_line(row) for row in rows]}
    for name in FLAGGED_SEGMENTERS:
        for flag, threshold in (("short of the box", SHORT_FROM), ("cut off by the box", CUT_FROM)):
            every = [case for row in rows if row["segmenter"] == name for case in _cases(row, flag)]
            cases = [case for case in every if case.boxes != "centre"]
            kinds = dict.fromkeys(case.boxes for case in every)
            figures.setdefault(flag, {})[name] = {
                "threshold": threshold,
                "cross_validated": cross_validated(cases),
                "all": counted(cases, threshold),
                **{kind: counted([case for case in every if case.boxes == kind], threshold) for kind in kinds},
            }
    for name in FLAGGED_SEGMENTERS:
        centred = [row for row in rows if row["segmenter"] == name and row["boxes"] == "centre"]
        wrong = [row for row in centred if row["iou"] < WRONG_BELOW]
        figures.setdefault("centre", {})[name] = {
            "masks": len(centred),
            "wrong": len(wrong),
            "wrong_flagged": sum(bool(row["flags"]) for row in wrong),
            "flagged": sum(bool(row["flags"]) for row in centred),
        }
    return figures


def _flag_rows(photo: Photo) -> Iterator[dict[str, Any]]:
    """Yield one row per box and segmenter; a photograph with two kinds of boxes is moved and centred once only."""
    size, (given,) = Size(*photo.truth.shape), photo.boxes
    boxes = [("given", given)]
    if not photo.group.endswith("loose"):
        boxes += [*moved_boxes(given, size), ("centre", center_box(size))]
    subject, counts = photo.truth == SUBJECT, photo.truth != IGNORED
    for kind, box in boxes:
        outside = 1 - float(np.count_nonzero(subject & box_alone(photo.pixels, box))) / int(np.count_nonzero(subject))
        for name in FLAGGED_SEGMENTERS:
            mask = SEGMENTERS[name](photo.pixels, box)
            yield {
                "set": photo.group,
                "image": photo.name,
                "boxes": kind,
                "segmenter": name,
                "iou": round(iou(mask & counts, subject), 4),
                "outside": round(outside, 4),
                "gap": round(side_gap(mask, box), 4),
                "edge": round(straight_edge(mask, box), 4),
                "flags": list(flags(mask, box, guess=kind == "centre")),
            }


def _line(row: dict[str, Any]) -> str:
    """Return a row as one line of text: hundreds of rows stay readable in the file."""
    return ",".join("; ".join(value) if isinstance(value, list) else str(value) for value in row.values())


def _cases(row: dict[str, Any], flag: str) -> Iterator[Case]:
    if flag == "short of the box":
        yield Case(row["image"], row["boxes"], row["gap"], row["iou"] < WRONG_BELOW)
    elif not WHOLE_UP_TO < row["outside"] < CUT_OFF_FROM:
        yield Case(row["image"], row["boxes"], row["edge"], row["outside"] >= CUT_OFF_FROM)


def _flag_table(figures: dict[str, Any]) -> str:
    shares, rows = ("recall", "false_alarms", "precision"), []
    for flag in ("short of the box", "cut off by the box"):
        for name, entry in figures[flag].items():
            held, used = entry["cross_validated"], entry["all"]
            low, high = held["thresholds"]
            chosen = f"{held['threshold']:.2f} ({low:.2f} to {high:.2f}), held out"
            rows.append((flag, name, f"{held['masks']}", chosen, *(f"{held[share]:.2f}" for share in shares)))
            rows.append((flag, name, f"{used['masks']}", f"{entry['threshold']}", *(f"{used[x]:.2f}" for x in shares)))
    return columns(("flag", "masks of", "masks", "threshold", "recall", "false alarms", "precision at 1 in 10"), rows)


@click.command()
@click.argument("root", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--json", "file", metavar="FILE", type=click.Path(path_type=Path), help="Also write the figures to this file."
)
@click.option("--flags", "with_flags", is_flag=True, help="Also measure how well flags find wrong masks, in minutes.")
def main(root: Path, file: Path | None, with_flags: bool) -> None:
    """Measure the masks of GrabCut against the ground truth in DIR, which holds sets, each with a boxes.csv."""
    import cv2

    cv2.setNumThreads(1)  # so that the CPU time of the calling thread is the whole CPU time
    figures = measure(root)
    if not figures:
        raise click.UsageError(f"there is no <set>/boxes.csv under {root}; name a folder that has some")
    rows = [
        (group, f"{len(e['iou'])}", name, f"{e['mean_iou']:.3f}", f"{e['median_s']:.3f}", f"{e['max_s']:.3f}")
        for group, entries in figures.items()
        for name, e in entries.items()
    ]
    say(columns(("set", "images", "method", "mean IoU", "median s", "max s"), rows))
    say("Seconds are CPU time per box.")
    content: dict[str, Any] = {"bench": "quality", "sets": figures}
    if with_flags:
        content["flags"] = measure_flags(root)
        say(_flag_table(content["flags"]))
    if file:
        write_file(Target.file(file), (json.dumps({**content, **stamp()}, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
