"""Annotated masks: finding those of a data set's samples, in a folder of images or in a COCO file."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from fgfast.data_paths import AnyPath, DataPath, LinkOutError
from fgfast.datasets.annotation_files import MOST_BYTES, read_bytes, short
from fgfast.datasets.cell_values import from_json
from fgfast.datasets.folder_tree import walk
from fgfast.datasets.layout import understood
from fgfast.datasets.masks import RULES
from fgfast.errors import DatasetError, UsageError
from fgfast.files import FileTooLargeError, read_regular
from fgfast.mask_source import MaskKind, MaskSource
from fgfast.records import Sample

SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif", ".webp", ".pbm", ".pgm", ".jpg", ".jpeg")
# Hashing releases the GIL, and cold disks answer several questions at once.
_THREADS = 8


def from_files(kind: MaskKind, files: Mapping[str, AnyPath]) -> dict[str, MaskSource]:
    """Return key -> mask of those files that exist.

    Args:
        kind: how the files are written.
        files: key -> file.
    """

    def source(path: AnyPath) -> MaskSource | None:
        if not path.is_file():
            return None
        try:
            return MaskSource(kind, path, hashlib.sha256(read_regular(path, MOST_BYTES["mask"])).hexdigest())
        except (LinkOutError, FileTooLargeError) as error:
            return MaskSource(kind, path, f"not read: {error.strerror}")  # its sample fails with the reason
        except OSError as error:
            raise DatasetError(path, f"the mask cannot be read: {error.strerror or error}") from error

    with ThreadPoolExecutor(_THREADS) as pool:
        found = zip(files, pool.map(source, files.values()), strict=True)
        return {key: mask for key, mask in found if mask is not None}


class Found(NamedTuple):
    """What was found for a data set.

    Attributes:
        masks: key -> mask, of the wanted samples.
        rule: what is subject in them.
        unused: number of masks that belong to no image of the data set.
    """

    masks: dict[str, MaskSource]
    rule: str
    unused: int = 0


def in_folder(folder: DataPath, samples: Sequence[Sample], wanted: Collection[str]) -> Found:
    """Find masks by name in a folder of mask images.

    A mask has its image's path, below the data set's folder or below the folder that holds all its images, with a
    suffix of `SUFFIXES` instead of the image's or behind it.

    Args:
        folder: the folder of masks.
        samples: all samples of the data set.
        wanted: the keys whose masks are needed.

    Raises:
        DatasetError: an image has several masks.
        UsageError: no image has one.
    """
    there = _images_in(folder)
    shared = Counter(_stem(sample.key) for sample in samples)
    top = _common_folder(samples)
    files: dict[str, AnyPath] = {}
    for sample in samples:
        found: list[str] = []
        for name in dict.fromkeys((sample.key, sample.key.removeprefix(top))):
            # Two images that differ in their suffix only cannot share a mask: theirs is found by the whole name.
            stems = [name] if shared[_stem(sample.key)] > 1 else [name, _stem(name)]
            found = found or [path for stem in stems for path in there.get(_same_form(stem), ())]
        if len(found) > 1:
            raise DatasetError(folder, f"{sample.key!r} has several masks: {', '.join(sorted(found)[:3])}; keep one")
        if found:
            files[sample.key] = folder / found[0]
    if any(path.resolve() == sample.path.resolve() for sample in samples if (path := files.get(sample.key))):
        raise UsageError(f"{folder} is the folder of the images themselves: give the folder of their masks")
    unused = sum(map(len, there.values())) - len(files)
    files = {key: path for key, path in files.items() if key in wanted}
    if not files:
        example = _stem(next(iter(wanted)).removeprefix(top))
        raise UsageError(f"no file in {folder} is named like a selected image; expected {example}.png, for example")
    return Found(from_files("grey", files), RULES["grey"], unused)


def _images_in(folder: DataPath) -> dict[str, list[str]]:
    """Return path without suffix -> paths, relative to the folder, of its images, without hidden ones."""
    there = defaultdict(list)
    with understood(folder):
        tree = walk(folder)
    for path in tree.images:
        if PurePosixPath(path).suffix.lower() in SUFFIXES:
            there[_same_form(_stem(path))].append(path)
    return there


def _stem(path: str) -> str:
    """Return a path without its last suffix."""
    return str(PurePosixPath(path).with_suffix(""))


def _same_form(path: str) -> str:
    """Return a path in one Unicode form: file systems change it."""
    return unicodedata.normalize("NFC", path)


def _common_folder(samples: Iterable[Sample]) -> str:
    """Return the folder that holds all images, with its slash: "images/" for CUB; empty where there is none."""
    folders = [sample.key.split("/")[:-1] for sample in samples]
    common: list[str] = []
    for parts in zip(*folders, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return "".join(f"{part}/" for part in common)


def in_coco(path: AnyPath, samples: Sequence[Sample], wanted: Collection[str]) -> Found:
    """Find masks in the annotations of a COCO file.

    An image is matched by its `file_name`: its path, below the data set's folder or below the folder that holds all its
    images, or that path behind other folders; or the end of its path, where no other image's path ends so.

    Args:
        path: the JSON file.
        samples: all samples of the data set.
        wanted: the keys whose masks are needed.

    Raises:
        DatasetError: the file is not understood, or names an image that cannot be told from another.
        UsageError: the file has no annotation of an image of the data set.
    """
    with understood(path):
        return _in_coco(path, samples, wanted)


def _in_coco(path: AnyPath, samples: Sequence[Sample], wanted: Collection[str]) -> Found:
    images, annotations = _coco_tables(path)
    keys_of = _by_name(samples)
    masks: dict[str, MaskSource] = {}
    unused = 0
    for ident, image in images.items():
        keys = keys_of(str(image["file_name"]))
        if len(keys) > 1:
            raise DatasetError(path, f"file_name {short(image['file_name'])} could be {keys[0]!r} or {keys[1]!r}")
        unused += not keys
        if not keys or keys[0] not in wanted or ident not in annotations:
            continue
        if keys[0] in masks:
            raise DatasetError(path, f"two entries of images are {keys[0]!r}; its annotations belong to one")
        masks[keys[0]] = coco_source(path, annotations[ident], image.get("height"), image.get("width"))
    if not masks:
        name = next(iter(images.values()), {}).get("file_name")
        raise UsageError(
            f"{path} has no annotation of a selected image: it names images like {short(name)}, the data set like "
            f"{next(iter(wanted))!r}"
        )
    return Found(masks, RULES["coco"], unused)


def coco_source(
    path: AnyPath,
    annotations: Sequence[Mapping[str, Any]],
    height: int | None = None,
    width: int | None = None,
    flags: tuple[str, ...] = (),
) -> MaskSource:
    """Return the mask of one image's COCO annotations.

    Args:
        path: the file that lists them.
        annotations: with `id` and `segmentation`.
        height, width: of the image, as the file states them.
        flags: reasons to doubt the mask that are known already.
    """
    kept = [{name: annotation.get(name) for name in ("id", "segmentation")} for annotation in annotations]
    content = json.dumps({"height": height, "width": width, "annotations": kept}, sort_keys=True).encode()
    return MaskSource("coco", path, hashlib.sha256(content).hexdigest(), content, flags)


def _coco_tables(path: AnyPath) -> tuple[dict[Any, dict[str, Any]], dict[Any, list[dict[str, Any]]]]:
    """Return id -> entry of images, and id of image -> entries of annotations."""
    try:
        content = from_json(read_bytes(path, "coco"))
    except ValueError as error:
        raise DatasetError(path, f"not JSON: {error}") from None
    tables = content if isinstance(content, dict) else {}
    for name, needed in (("images", ("id", "file_name")), ("annotations", ("id", "image_id"))):
        if not isinstance(tables.get(name), list):
            raise DatasetError(path, f"expected a COCO file with a list {name!r}")
        for entry in tables[name]:
            if not isinstance(entry, dict) or any(isinstance(entry.get(n), (type(None), list, dict)) for n in needed):
                raise DatasetError(path, f"expected {' and '.join(needed)} in an entry of {name}, got {short(entry)}")
    images = {image["id"]: image for image in tables["images"]}
    if len(images) < len(tables["images"]):
        raise DatasetError(path, "two images have the same id")
    annotations = defaultdict(list)
    for annotation in tables["annotations"]:
        if annotation["image_id"] not in images:
            raise DatasetError(
                path, f"annotation {short(annotation['id'])} is of an image {short(annotation['image_id'])} not listed"
            )
        annotations[annotation["image_id"]].append(annotation)
    return images, annotations


def _by_name(samples: Sequence[Sample]) -> Callable[[str], tuple[str, ...]]:
    """Return a function that gives the keys of the images that a file_name can mean."""
    top = _common_folder(samples)
    whole: dict[str, tuple[str, ...]] = {}
    ends: dict[str, tuple[str, ...]] = defaultdict(tuple)
    for sample in samples:
        key = _same_form(sample.key)
        whole[key] = whole[_same_form(sample.key.removeprefix(top))] = (sample.key,)
        for end in _ends(key):
            ends[end] += (sample.key,)

    def keys_of(file_name: str) -> tuple[str, ...]:
        name = _same_form(str(PurePosixPath(file_name.replace("\\", "/"))))
        if name in whole or name in ends:
            return whole.get(name) or ends[name]
        return next((whole[end] for end in _ends(name) if end in whole), ())

    return keys_of


def _ends(path: str) -> Iterator[str]:
    """Yield a path without its first folder, without its first two, and so on: the longest first."""
    while "/" in path:
        path = path.partition("/")[2]
        yield path
