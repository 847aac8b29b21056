"""Tiny data sets in each layout, for the tests: a few generated images and every annotation file.

Each builder writes below `parent` and returns the data set's root. Images are WIDTH x HEIGHT with a bright
subject in SUBJECT; annotated boxes are that rectangle in the layout's own convention.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from PIL import Image

from fgfast.datasets.layout import Dataset, ImagePlacement
from fgfast.records import Size

# Photographs beside the repository; tests that need them skip where they are absent.
SHARED = Path(__file__).resolve().parents[2] / "shared" / "photos"

WIDTH, HEIGHT = 48, 36
SIZE = Size(HEIGHT, WIDTH)
# x0 y0 x1 y1, continuous.
SUBJECT = (8, 6, 32, 26)


def make_image(path: Path, seed: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    """Write an image: dim noise, a bright rectangle where the subject is."""
    width, height = size
    pixels = np.random.default_rng(seed).integers(0, 90, (height, width, 3), dtype=np.uint8)
    x0, y0, x1, y1 = SUBJECT
    pixels[y0:y1, x0:x1] = (230, 60 + 40 * (seed % 4), 40)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def text(path: Path, *lines: str) -> Path:
    """Write lines with LF endings."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())
    return path


def mat(path: Path, **variables: Any) -> Path:
    """Write a MAT-file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, variables)
    return path


def cells(*values: str, column: bool = False) -> np.ndarray:
    """A MATLAB cell array of strings, a row or a column."""
    array = np.empty(len(values), object)
    array[:] = values
    return array.reshape(-1, 1) if column else array.reshape(1, -1)


def structs(rows: list[dict[str, Any]]) -> np.ndarray:
    """A MATLAB struct array, (1, N), with numbers as small integers, as real files decode."""
    array = np.empty((1, len(rows)), [(name, object) for name in rows[0]])
    for index, row in enumerate(rows):
        for name, value in row.items():
            array[0, index][name] = value if isinstance(value, str) else np.array([[value]], np.uint8)
    return array


def cub(parent: Path) -> Path:
    """Four birds of two classes; ids with a gap; parts and attributes."""
    root = parent / "CUB_200_2011"
    images = {
        1: "001.Auk/Auk_0001_10.jpg",
        2: "001.Auk/Auk_0002_20.jpg",
        7: "002.Jay/Jay_0001_30.jpg",
        9: "002.Jay/Jay_0002_40.jpg",
    }
    for ident, name in images.items():
        make_image(root / "images" / name, ident)
    text(root / "images.txt", *(f"{i} {name}" for i, name in images.items()))
    text(root / "image_class_labels.txt", "1 1", "2 1", "7 2", "9 2")
    text(root / "train_test_split.txt", "1 1", "2 0", "7 1", "9 0")
    text(root / "classes.txt", "1 001.Auk", "2 002.Jay")
    text(root / "bounding_boxes.txt", *(f"{i} 8.0 6.0 24.0 20.0" for i in images))
    parts = [f"{i} {part} {where}" for i in images for part, where in ((1, "10.0 8.0 1"), (2, "0.0 0.0 0"))]
    text(root / "parts/part_locs.txt", *parts)
    text(root / "parts/part_click_locs.txt", *(f"{line} 3.5" for line in parts))
    text(root / "parts/parts.txt", "1 back", "2 left wing")
    text(root / "attributes/image_attribute_labels.txt", *(f"{i} 1 0 3 27.708" for i in images))
    text(root / "attributes/attributes.txt", "1 has_bill_shape::curved")
    text(root / "README", "birds")
    return root


def _car(name: str, label: int | None, field: str = "fname", **more: int) -> dict[str, Any]:
    box = {"bbox_x1": 9, "bbox_y1": 7, "bbox_x2": 32, "bbox_y2": 26}
    return {**box, **({} if label is None else {"class": label}), field: name, **more}


CAR_NAMES = ("AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012")


def cars(parent: Path, labelled: bool = True, nested: bool = False, class_folders: bool = False) -> Path:
    """Three cars to train and two to test, in torchvision's layout, or as Kaggle's copies nest it."""
    root = parent / "stanford_cars"
    for split, count in (("train", 3), ("test", 2)):
        below = root / f"cars_{split}" / (f"cars_{split}" if nested else "")
        for index in range(1, count + 1):
            inside = CAR_NAMES[index % 2].replace("/", "-") if class_folders else ""
            make_image(below / inside / f"{index:05d}.jpg", index + 10 * count)
    train = [_car("00001.jpg", 1), _car("00002.jpg", 2), _car("00003.jpg", 1)]
    mat(root / "devkit/cars_train_annos.mat", annotations=structs(train))
    test = [_car("00001.jpg", None), _car("00002.jpg", None)]
    mat(root / "devkit/cars_test_annos.mat", annotations=structs(test))
    mat(root / "devkit/cars_meta.mat", class_names=cells(*CAR_NAMES))
    text(root / "devkit/README.txt", "cars")
    if labelled:
        test = [_car("00001.jpg", 2), _car("00002.jpg", 1)]
        mat(root / "cars_test_annos_withlabels.mat", annotations=structs(test))
    return root


def cars_older(parent: Path) -> Path:
    """Three cars in the older layout, one of them to test."""
    root = parent / "stanford_cars"
    rows = [_car(f"car_ims/{i:06d}.jpg", 1 + i % 2, "relative_im_path", test=int(i == 3)) for i in range(1, 4)]
    for index, row in enumerate(rows):
        make_image(root / row["relative_im_path"], index)
    mat(root / "cars_annos.mat", annotations=structs(rows), class_names=cells(*CAR_NAMES))
    return root


def aircraft(parent: Path) -> Path:
    """Four aircraft: one to train, one to validate, two to test."""
    root = parent / "fgvc-aircraft-2013b"
    data = root / "data"
    lists = {"train": ("0034309",), "val": ("1025794",), "test": ("0056978", "2000001")}
    kinds = {
        "variant": {"0034309": "F-16A/B", "1025794": "707-320", "0056978": "F-16A/B", "2000001": "707-320"},
        "family": {"0034309": "F-16", "1025794": "Boeing 707", "0056978": "F-16", "2000001": "Boeing 707"},
        "manufacturer": {
            "0034309": "Lockheed Martin",
            "1025794": "Boeing",
            "0056978": "Lockheed Martin",
            "2000001": "Boeing",
        },
    }
    for seed, ident in enumerate(kinds["variant"]):
        make_image(data / f"images/{ident}.jpg", seed)
    for kind, labels in kinds.items():
        for split, idents in (*lists.items(), ("trainval", lists["train"] + lists["val"])):
            text(data / f"images_{kind}_{split}.txt", *(f"{i} {labels[i]}" for i in idents))
    text(data / "variants.txt", "707-320", "F-16A/B")
    text(data / "families.txt", "Boeing 707", "F-16")
    text(data / "manufacturers.txt", "Boeing", "Lockheed Martin")
    text(data / "images_box.txt", *(f"{i} 9 7 32 26" for i in kinds["variant"]))
    text(root / "README.md", "aircraft")
    return root


def waterbirds(parent: Path) -> Path:
    """Three birds; no boxes unless CUB lies beside it."""
    root = parent / "waterbird_complete95_forest2water2"
    rows = [
        "1,001.Auk/Auk_0001_10.jpg,1,0,0,/f/forest/broadleaf/00000001.jpg",
        '2,001.Auk/Auk_0002_20.jpg,1,1,1,"/o/ocean, far/00000002.jpg"',
        "7,002.Jay/Jay_0001_30.jpg,0,2,1,/o/ocean/00000003.jpg",
    ]
    for seed, row in enumerate(rows):
        make_image(root / row.split(",")[1], seed)
    text(root / "metadata.csv", "img_id,img_filename,y,split,place,place_filename", *rows)
    return root


def voc(path: Path, filename: str, *boxes: tuple[int, int, int, int]) -> Path:
    """Write a VOC file; boxes are 1-based inclusive pixels."""
    objects = [
        f"\t<object>\n\t\t<name>it</name>\n\t\t<bndbox>\n\t\t\t<xmin>{a}</xmin>\n\t\t\t<ymin>{b}</ymin>\n"
        f"\t\t\t<xmax>{c}</xmax>\n\t\t\t<ymax>{d}</ymax>\n\t\t</bndbox>\n\t</object>"
        for a, b, c, d in boxes
    ]
    size = f"<width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth>"
    head = ("<annotation>", f"\t<filename>{filename}</filename>", f"\t<size>{size}</size>")
    return text(path, *head, *objects, "</annotation>")


def pets(parent: Path) -> Path:
    """Three pets, with trimaps and boxes of two heads; the usual stray files."""
    root = parent / "oxford-iiit-pet"
    names = ("great_pyrenees_1", "Abyssinian_12", "great_pyrenees_3")
    for seed, name in enumerate(names):
        make_image(root / f"images/{name}.jpg", seed)
        x0, y0, x1, y1 = SUBJECT
        trimap = np.full((HEIGHT, WIDTH), 2, np.uint8)
        trimap[y0:y1, x0:x1] = 3
        trimap[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2] = 1
        (root / "annotations/trimaps").mkdir(parents=True, exist_ok=True)
        Image.fromarray(trimap).save(root / f"annotations/trimaps/{name}.png")
    for name in names[:2]:
        voc(root / f"annotations/xmls/{name}.xml", f"{name}.jpg", (11, 8, 20, 14))
    annotations = root / "annotations"
    text(annotations / "list.txt", "#Image CLASS-ID SPECIES BREED ID", *(f"{n} 1 1 1" for n in names))
    text(annotations / "trainval.txt", f"{names[0]} 2 2 1", f"{names[1]} 1 1 1")
    text(annotations / "test.txt", f"{names[2]} 2 2 1")
    text(annotations / "README", "pets")
    (root / "images/Abyssinian_100.mat").write_bytes(b"stray")
    (annotations / "trimaps/._Abyssinian_12.png").write_bytes(b"stray")
    return root


def dogs(parent: Path, lists: bool = True) -> Path:
    """Three dogs of two breeds; one image has two of them."""
    root = parent / "StanfordDogs"
    names = (
        "n02085620-Chihuahua/n02085620_7",
        "n02085620-Chihuahua/n02085620_9",
        "n02086079-Pekinese/n02086079_1",
    )
    for seed, name in enumerate(names):
        make_image(root / f"Images/{name}.jpg", seed)
        more = ((0, 0, 5, 5),) if seed == 1 else ()
        voc(root / f"Annotation/{name}", Path(name).name, (9, 7, 32, 26), *more)
    if lists:
        rows = {"train_list": (names[0], names[2]), "test_list": (names[1],), "file_list": names}
        for file, there in rows.items():
            mat(
                root / f"{file}.mat",
                file_list=cells(*(f"{name}.jpg" for name in there), column=True),
                annotation_list=cells(*there, column=True),
                labels=np.array([[1 + ("Pek" in name)] for name in there], np.uint8),
            )
    return root


def flowers(parent: Path) -> Path:
    """Five flowers of three classes."""
    root = parent / "flowers-102"
    for ident in range(1, 6):
        make_image(root / f"jpg/image_{ident:05d}.jpg", ident)
    mat(root / "imagelabels.mat", labels=np.array([[3, 1, 2, 3, 1]], np.uint8))
    mat(
        root / "setid.mat",
        trnid=np.array([[4, 1]], np.uint16),
        valid=np.array([[5]], np.uint16),
        tstid=np.array([[2, 3]], np.uint16),
    )
    return root


def folder(parent: Path) -> Path:
    """Four images as split/class/file, with boxes.csv for two of them; files to ignore."""
    root = parent / "images"
    for seed, key in enumerate(("train/cat/a.jpg", "train/dog/b.png", "Validation/cat/c.jpg", "test/dog/d.jpg")):
        make_image(root / key, seed)
    text(root / "boxes.csv", "path,x0,y0,x1,y1", "train/cat/a.jpg,8,6,32,26", "test/dog/d.jpg,8.5,6,32,26")
    text(root / "notes.txt", "not an image")
    text(root / ".hidden/e.jpg", "not seen")
    return root


BUILDERS: Mapping[str, Callable[[Path], Path]] = {
    "cub": cub,
    "cars": cars,
    "aircraft": aircraft,
    "waterbirds": waterbirds,
    "pets": pets,
    "dogs": dogs,
    "flowers": flowers,
    "folder": folder,
}


def placements(
    dataset: Dataset,
    offset: tuple[int, int] = (0, 0),
    size: Size = SIZE,
    suffix: str | None = None,
    without: tuple[str, ...] = (),
) -> dict[str, ImagePlacement]:
    """The same placement for every sample; `without` lists keys that have no image in the twin."""
    return {
        sample.key: ImagePlacement(
            sample.key if suffix is None else str(Path(sample.key).with_suffix(suffix)),
            offset,
            size,
            SIZE,
        )
        for sample in dataset.samples
        if sample.key not in without
    }


def files_below(root: os.PathLike[str]) -> dict[str, bytes]:
    """Relative path -> content of every file."""
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(Path(root).rglob("*")) if p.is_file()}
