"""Turns two small data sets of real photographs into foreground-only copies, to show what fgfast does.

`make demo` runs it. The photographs come out of the installed wheels of scikit-image and scikit-learn; one image is
drawn here, because the README must not show anyone else's.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import click
import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from fgfast.bench.images import THINGS, VEHICLES, noise_image, variations
from fgfast.cli import main as fgfast
from fgfast.terminal import say
from fgfast.writing import Target, replacing, write_file

Point = tuple[float, float]

# The images of FGVC-Aircraft end in a credit line of 20 rows.
_BANNER_ROWS = 20
# The split of each of the four variations of a photograph.
_SPLITS = ("train", "val", "test", "test")
# The longer edge at which the before-after images show an image, and the gap between pairs, in pixels.
_CELL, _GAP = 320, 12
# The width and height of the drawn bird's image, and the box around the bird: x0 y0 x1 y1, in pixels.
_BIRD_SIZE = (600, 400)
_BIRD_BOX = (140.0, 62.0, 520.0, 330.0)
# The amplitude of the drawing's noise falls with this power of the frequency.
_GRAIN = 1.3
# The bird is drawn at this multiple of its size and scaled down, which smooths its edges.
_FINE = 3


def convert(folder: Path) -> int:
    """Build both data sets below `folder`, convert them and print where the results are.

    Returns:
        The exit code of the first conversion that failed, else 0.
    """
    data = folder / "data"
    build_aircraft(data / "fgvc-aircraft-2013b")
    build_cub(data / "CUB_200_2011")
    for name, more in (("aircraft", ["--background", "white"]), ("cub", [])):
        command = ["convert", "--dataset", name, "--root", str(data), "--out", str(folder / f"{name}_fg"), *more]
        say("\n$ fgfast " + " ".join(command))
        try:
            fgfast([*command, "--overwrite"], "fgfast")
        except SystemExit as end:
            if end.code:
                return int(end.code)
    keys = [f"data/images/{n:07d}.jpg" for n in (1, 5, 9, 13)]
    pairs = [_pair(data, folder, "fgvc-aircraft-2013b", "aircraft", key) for key in keys]
    keys = [f"images/{p.names[0]}/{p.names[0][4:]}_{4 * n + 1:04d}_{n}.jpg" for n, p in enumerate(THINGS)]
    pairs += [_pair(data, folder, "CUB_200_2011", "cub", key) for key in keys]
    sheet(pairs, folder / "before_after.png", columns=3)
    bird = _pair(data, folder, "CUB_200_2011", "cub", "images/007.Drawn_Bird/Drawn_Bird_0025_6.jpg")
    sheet([bird], folder / "drawn_before_after.png", columns=1)
    say(
        f"\nThe demo is finished. See\n  {folder}/before_after.png        images beside their cut-outs"
        f"\n  {folder}/aircraft_fg/fgfast/report.html\n  {folder}/cub_fg/fgfast/report.html"
        f"\nThe data sets' own loaders read the twins: {folder}/aircraft_fg, {folder}/cub_fg"
    )
    return 0


def build_aircraft(root: Path) -> None:
    """Write the vehicles below `root` in the layout of FGVC-Aircraft, each with its credit line."""
    data = root / "data"
    rows: list[tuple[str, str, tuple[str, ...]]] = []
    boxes = []
    for photo in VEHICLES:
        for split, (image, box) in zip(_SPLITS, variations(photo.open(), photo.box), strict=True):
            ident = f"{len(rows) + 1:07d}"
            _save(_with_banner(image), data / "images" / f"{ident}.jpg", quality=95)
            rows.append((ident, split, photo.names))
            # FGVC-Aircraft counts pixels from 1 and includes the last one.
            boxes.append(f"{ident} {round(box[0]) + 1} {round(box[1]) + 1} {round(box[2])} {round(box[3])}")
    _lines(data / "images_box.txt", boxes)
    kinds = (("variant", "variants"), ("family", "families"), ("manufacturer", "manufacturers"))
    for n, (kind, plural) in enumerate(kinds):
        _lines(data / f"{plural}.txt", sorted({names[n] for _, _, names in rows}))
        for split in ("train", "val", "trainval", "test"):
            chosen = [(i, names[n]) for i, s, names in rows if s in split]
            _lines(data / f"images_{kind}_{split}.txt", [f"{ident} {name}" for ident, name in chosen])


def _with_banner(image: Image.Image) -> Image.Image:
    framed = Image.new("RGB", (image.width, image.height + _BANNER_ROWS), "white")
    framed.paste(image)
    text = "fgfast demo, images of scikit-image"
    ImageDraw.Draw(framed).text((4, image.height + 4), text, fill="black")
    return framed


def build_cub(root: Path) -> None:
    """Write the other photographs and the drawn bird below `root` in the layout of CUB-200-2011."""
    lists: dict[str, list[str]] = {name: [] for name in ("images", "labels", "split", "boxes", "parts")}
    classes = [photo.names[0] for photo in THINGS] + ["007.Drawn_Bird"]
    sources = [(photo.open(), photo.box) for photo in THINGS] + [(drawn_bird(), _BIRD_BOX)]
    ident = 0
    for number, (name, (image, box)) in enumerate(zip(classes, sources, strict=True)):
        for n, (variation, (x0, y0, x1, y1)) in enumerate(variations(image, box)):
            ident += 1
            file = f"{name}/{name[4:]}_{ident:04d}_{number}.jpg"
            path = root / "images" / file
            _save(variation, path, quality=95)
            lists["images"].append(f"{ident} {file}")
            lists["labels"].append(f"{ident} {number + 1}")
            lists["split"].append(f"{ident} {int(n < 2)}")
            lists["boxes"].append(f"{ident} {x0:.1f} {y0:.1f} {x1 - x0:.1f} {y1 - y0:.1f}")
            lists["parts"].append(f"{ident} 1 {(x0 + x1) / 2:.1f} {(y0 + y1) / 2:.1f} 1")
    _lines(root / "images.txt", lists["images"])
    _lines(root / "image_class_labels.txt", lists["labels"])
    _lines(root / "train_test_split.txt", lists["split"])
    _lines(root / "bounding_boxes.txt", lists["boxes"])
    _lines(root / "classes.txt", [f"{n} {name}" for n, name in enumerate(classes, 1)])
    _lines(root / "parts" / "part_locs.txt", lists["parts"])
    _lines(root / "parts" / "parts.txt", ["1 middle"])


def _lines(path: Path, lines: list[str]) -> None:
    write_file(Target.file(path), "".join(line + "\n" for line in lines).encode(), sync=False)


def _save(image: Image.Image, path: Path, **options: int) -> None:
    with replacing(Target.file(path), sync=False) as file:
        image.save(file, Image.registered_extensions()[path.suffix], **options)


def _pair(data: Path, folder: Path, layout: str, name: str, key: str) -> tuple[Path, Path]:
    return data / layout / key, folder / f"{name}_fg" / layout / key


def sheet(pairs: list[tuple[Path, Path]], path: Path, columns: int) -> None:
    """Write a PNG of pairs, the files of an image and of its cut-out, `columns` of them per row."""
    cells = []
    for pair in pairs:
        both = [Image.open(file).convert("RGB") for file in pair]
        for image in both:
            image.thumbnail((_CELL, _CELL), Image.Resampling.LANCZOS)
        framed = Image.new("RGB", (both[0].width * 2 + 4, both[0].height), "white")
        framed.paste(both[0], (0, 0))
        framed.paste(both[1], (both[0].width + 4, 0))
        cells.append(framed)
    rows = [cells[n : n + columns] for n in range(0, len(cells), columns)]
    width = max(sum(c.width + _GAP for c in row) for row in rows) + _GAP
    heights = [max(c.height for c in row) for row in rows]
    canvas = Image.new("RGB", (width, sum(heights) + _GAP * (len(rows) + 1)), (236, 236, 236))
    y = _GAP
    for row, height in zip(rows, heights, strict=True):
        x = _GAP
        for framed in row:
            canvas.paste(framed, (x, y))
            x += framed.width + _GAP
        y += height + _GAP
    _save(canvas, path)


def drawn_bird() -> Image.Image:
    """Draw a blue bird on a branch before blurred leaves, as RGB."""
    generator = np.random.default_rng(7)
    width, height = (side * _FINE for side in _BIRD_SIZE)
    leaves = (
        Image.fromarray(noise_image(generator, height // 4, width // 4, _GRAIN)).convert("L").resize((width, height))
    )
    scene = Image.merge("RGB", [leaves.point(lambda v, k=k: int(30 + v * k)) for k in (0.45, 0.7, 0.3)])
    draw = ImageDraw.Draw(scene)
    for _ in range(60):
        x, y, r = generator.uniform(0, width), generator.uniform(0, height), generator.uniform(30, 130)
        green = int(generator.uniform(90, 190))
        draw.ellipse((x - r, y - r * 0.7, x + r, y + r * 0.7), fill=(green * 2 // 3, green, green // 3))
    scene = scene.filter(ImageFilter.GaussianBlur(10 * _FINE))
    draw = ImageDraw.Draw(scene)
    _stroke(draw, [(-20, 352), (200, 338), (420, 346), (640, 318)], 17, (84, 60, 44))
    _bird(draw)
    texture = Image.fromarray(noise_image(generator, height, width, _GRAIN)).point(lambda v: int(118 + v * 0.16))
    textured = ImageChops.multiply(scene, texture).point(lambda v: min(255, int(v * 1.85)))
    return textured.resize(_BIRD_SIZE, Image.Resampling.LANCZOS)


def _scaled(points: list[Point]) -> list[Point]:
    return [(x * _FINE, y * _FINE) for x, y in points]


def _stroke(draw: ImageDraw.ImageDraw, points: list[Point], width: float, colour: tuple[int, ...]) -> None:
    draw.line(_scaled(points), fill=colour, width=int(width * _FINE), joint="curve")


def _egg(x: float, y: float, a: float, b: float, turn: float) -> list[Point]:
    """The points of an ellipse around (x, y) with half axes a and b, turned by `turn` degrees."""
    c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    angles = [2 * math.pi * n / 120 for n in range(120)]
    return [
        (x + a * math.cos(t) * c - b * math.sin(t) * s, y + a * math.cos(t) * s + b * math.sin(t) * c) for t in angles
    ]


def _bird(draw: ImageDraw.ImageDraw) -> None:
    def fill(points: list[Point], colour: tuple[int, ...]) -> None:
        draw.polygon(_scaled(points), fill=colour)

    for x in (318, 348):
        _stroke(draw, [(x, 290), (x + 4, 336)], 6, (58, 46, 44))
    fill([(250, 220), (148, 300), (142, 322), (176, 326), (290, 262)], (30, 62, 128))  # tail
    fill(_egg(330, 218, 112, 76, -24), (46, 98, 186))  # body
    fill(_egg(366, 236, 72, 56, -38), (232, 140, 76))  # breast
    fill(_egg(440, 122, 56, 54, 0), (52, 108, 200))  # head
    fill([(484, 104), (519, 124), (486, 142)], (52, 46, 44))  # beak
    fill(_egg(292, 214, 92, 42, -30), (28, 60, 134))  # wing
    for n in range(4):
        _stroke(draw, [(226 + 12 * n, 262 - 2 * n), (318 + 8 * n, 182 + 9 * n)], 3, (70, 120, 206))
    fill(_egg(458, 112, 11, 11, 0), (18, 18, 22))  # eye
    fill(_egg(462, 108, 3.4, 3.4, 0), (244, 244, 240))


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default="demo")
def main(folder: Path) -> None:
    """Write two small data sets, their foreground-only copies and before-after images below FOLDER (default: demo)."""
    sys.exit(convert(folder))


if __name__ == "__main__":
    main()
