"""`make demo`: two small data sets of real photographs, each turned into its foreground-only twin.

The photographs come out of the installed wheels of scikit-image and scikit-learn; their boxes were set by hand. One
image is drawn here, because the README may show nobody else's.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from fgfast.bench.drawn import BIRD_BOX, drawn_bird
from fgfast.errors import MissingExtraError

Box = tuple[float, float, float, float]

# FGVC-Aircraft's images end in a credit line of 20 rows.
_BANNER_ROWS = 20
# One split for each of the four variations of a photograph.
_SPLITS = ("train", "val", "test", "test")
# Around the box in the zoomed variation, as a fraction of the box's sides.
_ZOOM_MARGIN = 0.3


@dataclass(frozen=True)
class Photo:
    """A photograph of a wheel, and where its subject is.

    Attributes:
        package: "skimage" or "sklearn".
        file: its name there.
        names: class name; for the aircraft layout variant, family and manufacturer.
        box: x0 y0 x1 y1 around the subject, set by hand.
    """

    package: str
    file: str
    names: tuple[str, ...]
    box: Box


VEHICLES = (
    Photo("skimage", "rocket.jpg", ("Falcon 9 v1.1", "Falcon 9", "SpaceX"), (303, 122, 347, 410)),
    Photo("skimage", "astronaut.png", ("Space Shuttle/ET", "Space Shuttle", "Rockwell"), (352, 0, 456, 290)),
    Photo("skimage", "motorcycle_left.png", ("XV 535", "Virago", "Yamaha"), (112, 66, 690, 465)),
    Photo("skimage", "motorcycle_right.png", ("XV 535", "Virago", "Yamaha"), (62, 66, 640, 465)),
)
THINGS = (
    Photo("skimage", "coffee.png", ("001.Coffee",), (70, 14, 486, 386)),
    Photo("sklearn", "flower.jpg", ("002.Dahlia",), (165, 82, 450, 360)),
    Photo("sklearn", "china.jpg", ("003.Pagoda",), (55, 26, 365, 420)),
    Photo("skimage", "astronaut.png", ("004.Astronaut",), (0, 8, 405, 512)),
    Photo("skimage", "camera.png", ("005.Cameraman",), (0, 50, 336, 512)),
    Photo("skimage", "chelsea.png", ("006.Cat",), (0, 0, 412, 300)),
)


def main(folder: Path) -> int:
    """Build both data sets below `folder`, convert them, and say where to look. Returns the exit code."""
    data = folder / "data"
    build_aircraft(data / "fgvc-aircraft-2013b")
    build_cub(data / "CUB_200_2011")
    for name, more in (("aircraft", ["--background", "white"]), ("cub", [])):
        command = ["convert", "--dataset", name, "--root", str(data), "--out", str(folder / f"{name}_fg"), *more]
        print("\n$ fgfast " + " ".join(command), flush=True)
        code = subprocess.run([sys.executable, "-m", "fgfast", *command, "--overwrite"], check=False).returncode
        if code:
            return code
    keys = [f"data/images/{n:07d}.jpg" for n in (1, 5, 9, 13)]
    pairs = [_pair(data, folder, "fgvc-aircraft-2013b", "aircraft", key) for key in keys]
    keys = [f"images/{p.names[0]}/{p.names[0][4:]}_{4 * n + 1:04d}_{n}.jpg" for n, p in enumerate(THINGS)]
    pairs += [_pair(data, folder, "CUB_200_2011", "cub", key) for key in keys]
    sheet(pairs, folder / "before_after.png", columns=3)
    drawn = [
        _pair(data, folder, "CUB_200_2011", "cub", key) for key in ("images/007.Drawn_Bird/Drawn_Bird_0025_6.jpg",)
    ]
    sheet(drawn, folder / "drawn_before_after.png", columns=1)
    print(
        f"\nLook at\n  {folder}/before_after.png        images beside their cut-outs"
        f"\n  {folder}/aircraft_fg/fgfast/report.html\n  {folder}/cub_fg/fgfast/report.html"
        f"\nThe twins load with the data sets' own loaders: {folder}/aircraft_fg, {folder}/cub_fg"
    )
    return 0


def photograph(photo: Photo) -> Image.Image:
    """The photograph, RGB."""
    import importlib

    try:
        package = importlib.import_module(photo.package)
    except ImportError:
        raise MissingExtraError(photo.package, "dev", "the demo's photographs") from None
    below = "data" if photo.package == "skimage" else "datasets/images"
    return Image.open(Path(str(package.__file__)).parent / below / photo.file).convert("RGB")


def variations(image: Image.Image, box: Box) -> Iterator[tuple[Image.Image, Box]]:
    """Four images of one subject: as it is, mirrored, zoomed in, and smaller and darker."""
    width, height = image.size
    x0, y0, x1, y1 = box
    yield image, box
    yield image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), (width - x1, y0, width - x0, y1)
    dx, dy = (x1 - x0) * _ZOOM_MARGIN, (y1 - y0) * _ZOOM_MARGIN
    left, top = max(0, int(x0 - dx)), max(0, int(y0 - dy))
    right, bottom = min(width, int(x1 + dx)), min(height, int(y1 + dy))
    yield image.crop((left, top, right, bottom)), (x0 - left, y0 - top, x1 - left, y1 - top)
    small = image.resize((width * 3 // 4, height * 3 // 4), Image.Resampling.LANCZOS).point(lambda v: v * 0.8)
    sx, sy = small.width / width, small.height / height
    yield small, (x0 * sx, y0 * sy, x1 * sx, y1 * sy)


def build_aircraft(root: Path) -> None:
    """Write the vehicles in FGVC-Aircraft's layout, banner included."""
    data = root / "data"
    (data / "images").mkdir(parents=True, exist_ok=True)
    rows: list[tuple[str, str, tuple[str, ...]]] = []
    boxes = []
    for photo in VEHICLES:
        for split, (image, box) in zip(_SPLITS, variations(photograph(photo), photo.box), strict=True):
            ident = f"{len(rows) + 1:07d}"
            _with_banner(image).save(data / "images" / f"{ident}.jpg", quality=95)
            rows.append((ident, split, photo.names))
            # 1-based, inclusive pixels.
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
    """Write the other images in CUB-200-2011's layout."""
    lists: dict[str, list[str]] = {name: [] for name in ("images", "labels", "split", "boxes", "parts")}
    classes = [photo.names[0] for photo in THINGS] + ["007.Drawn_Bird"]
    sources = [(photograph(photo), photo.box) for photo in THINGS] + [(drawn_bird(), BIRD_BOX)]
    ident = 0
    for number, (name, (image, box)) in enumerate(zip(classes, sources, strict=True)):
        for n, (variation, (x0, y0, x1, y1)) in enumerate(variations(image, box)):
            ident += 1
            file = f"{name}/{name[4:]}_{ident:04d}_{number}.jpg"
            path = root / "images" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            variation.save(path, quality=95)
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
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def _pair(data: Path, folder: Path, layout: str, name: str, key: str) -> tuple[Path, Path]:
    return data / layout / key, folder / f"{name}_fg" / layout / key


def sheet(pairs: list[tuple[Path, Path]], path: Path, columns: int, cell: int = 320, gap: int = 12) -> None:
    """Draw images beside their cut-outs, `columns` pairs a row."""
    cells = []
    for pair in pairs:
        both = [Image.open(file).convert("RGB") for file in pair]
        for image in both:
            image.thumbnail((cell, cell), Image.Resampling.LANCZOS)
        framed = Image.new("RGB", (both[0].width * 2 + 4, both[0].height), "white")
        framed.paste(both[0], (0, 0))
        framed.paste(both[1], (both[0].width + 4, 0))
        cells.append(framed)
    rows = [cells[n : n + columns] for n in range(0, len(cells), columns)]
    width = max(sum(c.width + gap for c in row) for row in rows) + gap
    heights = [max(c.height for c in row) for row in rows]
    canvas = Image.new("RGB", (width, sum(heights) + gap * (len(rows) + 1)), (236, 236, 236))
    y = gap
    for row, height in zip(rows, heights, strict=True):
        x = gap
        for framed in row:
            canvas.paste(framed, (x, y))
            x += framed.width + gap
        y += height + gap
    canvas.save(path)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo")))
