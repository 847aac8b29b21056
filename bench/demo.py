"""Turns two small data sets of real photographs into foreground-only copies, to show what fgfast does.

`make demo` runs it. The photographs come out of the installed wheels of scikit-image and scikit-learn; one image is
drawn here, because the README must not show anybody else's.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from drawn import BIRD_BOX, drawn_bird
from PIL import Image, ImageDraw

from fgfast.bench.images import THINGS, VEHICLES, variations

# The images of FGVC-Aircraft end in a credit line of 20 rows.
_BANNER_ROWS = 20
# The split of each of the four variations of a photograph.
_SPLITS = ("train", "val", "test", "test")


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
        print("\n$ fgfast " + " ".join(command), flush=True)
        code = subprocess.run([sys.executable, "-m", "fgfast", *command, "--overwrite"], check=False).returncode
        if code:
            return code
    keys = [f"data/images/{n:07d}.jpg" for n in (1, 5, 9, 13)]
    pairs = [_pair(data, folder, "fgvc-aircraft-2013b", "aircraft", key) for key in keys]
    keys = [f"images/{p.names[0]}/{p.names[0][4:]}_{4 * n + 1:04d}_{n}.jpg" for n, p in enumerate(THINGS)]
    pairs += [_pair(data, folder, "CUB_200_2011", "cub", key) for key in keys]
    sheet(pairs, folder / "before_after.png", columns=3)
    bird = _pair(data, folder, "CUB_200_2011", "cub", "images/007.Drawn_Bird/Drawn_Bird_0025_6.jpg")
    sheet([bird], folder / "drawn_before_after.png", columns=1)
    print(
        f"\nThe demo is finished. See\n  {folder}/before_after.png        images beside their cut-outs"
        f"\n  {folder}/aircraft_fg/fgfast/report.html\n  {folder}/cub_fg/fgfast/report.html"
        f"\nThe data sets' own loaders read the twins: {folder}/aircraft_fg, {folder}/cub_fg"
    )
    return 0


def build_aircraft(root: Path) -> None:
    """Write the vehicles below `root` in the layout of FGVC-Aircraft, each with its credit line."""
    data = root / "data"
    (data / "images").mkdir(parents=True, exist_ok=True)
    rows: list[tuple[str, str, tuple[str, ...]]] = []
    boxes = []
    for photo in VEHICLES:
        for split, (image, box) in zip(_SPLITS, variations(photo.open(), photo.box), strict=True):
            ident = f"{len(rows) + 1:07d}"
            _with_banner(image).save(data / "images" / f"{ident}.jpg", quality=95)
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
    sources = [(photo.open(), photo.box) for photo in THINGS] + [(drawn_bird(), BIRD_BOX)]
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
    """Write a PNG that shows images beside their cut-outs.

    Args:
        pairs: the files of each image and of its cut-out.
        path: the file to write.
        columns: pairs per row.
        cell: the longer edge at which each image is shown, in pixels.
        gap: pixels between pairs.
    """
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


def main() -> int:
    """Read the command line and convert."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path("demo"),
        help="The folder that the data sets, their twins and the before-after images are written to (default: demo).",
    )
    return convert(parser.parse_args().folder)


if __name__ == "__main__":
    sys.exit(main())
