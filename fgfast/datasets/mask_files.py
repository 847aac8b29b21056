"""Annotated masks: finding those of a data set's samples, in a folder of images or in a COCO file."""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from fgfast.datasets.annotation_files import read_bytes
from fgfast.errors import DatasetError, UsageError
from fgfast.records import MaskKind, MaskSource, Sample

SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif", ".webp", ".pbm", ".pgm", ".jpg", ".jpeg")
# Hashing releases the GIL, and cold disks answer several questions at once.
_THREADS = 8


def from_files(kind: MaskKind, files: Mapping[str, Path]) -> dict[str, MaskSource]:
    """Return key -> mask of those files that exist.

    Args:
        kind: how the files are written.
        files: key -> file.
    """

    def source(path: Path) -> MaskSource | None:
        if not path.is_file():
            return None
        try:
            return MaskSource(kind, path, hashlib.sha256(path.read_bytes()).hexdigest())
        except OSError as error:
            raise DatasetError(path, f"the mask cannot be read: {error.strerror or error}") from error

    with ThreadPoolExecutor(_THREADS) as pool:
        found = zip(files, pool.map(source, files.values()), strict=True)
        return {key: mask for key, mask in found if mask is not None}


def in_folder(folder: Path, samples: Sequence[Sample], wanted: Collection[str]) -> dict[str, MaskSource]:
    """Return key -> mask, found by name in a folder of mask images.

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
    files: dict[str, Path] = {}
    for sample in samples:
        if sample.key not in wanted:
            continue
        found: list[str] = []
        for name in dict.fromkeys((sample.key, sample.key.removeprefix(top))):
            # Two images that differ in their suffix only cannot share a mask: theirs is found by the whole name.
            stems = [name] if shared[_stem(sample.key)] > 1 else [name, _stem(name)]
            found = found or [path for stem in stems for path in there.get(_same_form(stem), ())]
        if len(found) > 1:
            raise DatasetError(folder, f"{sample.key!r} has several masks: {', '.join(sorted(found)[:3])}; keep one")
        if found:
            files[sample.key] = folder / found[0]
            if files[sample.key].resolve() == sample.path.resolve():
                raise UsageError(f"{folder} is the folder of the images themselves: give the folder of their masks")
    if not files:
        example = _stem(next(iter(wanted)).removeprefix(top))
        raise UsageError(f"no file in {folder} is named like an image; a mask would be {example}.png, for example")
    return from_files("grey", files)


def _images_in(folder: Path) -> dict[str, list[str]]:
    """Return path without suffix -> paths, relative to the folder, of its images, without hidden ones."""
    there = defaultdict(list)
    for below, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = (Path(below) / name).relative_to(folder).as_posix()
            if PurePosixPath(name).suffix.lower() in SUFFIXES and not name.startswith("."):
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


def in_coco(path: Path, samples: Sequence[Sample], wanted: Collection[str]) -> dict[str, MaskSource]:
    """Return key -> mask, from the annotations of a COCO file.

    An image is matched by its `file_name`: its path, below the data set's folder or below the folder that holds all its
    images; or its name alone, where only one image has that name.

    Args:
        path: the JSON file.
        samples: all samples of the data set.
        wanted: the keys whose masks are needed.

    Raises:
        DatasetError: the file is not understood, or names an image that cannot be told from another.
        UsageError: the file has no annotation of an image of the data set.
    """
    images, annotations = _coco_tables(path)
    key_of = _keys_by_name(samples)
    masks: dict[str, MaskSource] = {}
    for ident, image in images.items():
        keys = key_of.get(_same_form(str(PurePosixPath(image["file_name"]))), ())
        if len(keys) > 1:
            raise DatasetError(path, f"file_name {image['file_name']!r} could be {keys[0]!r} or {keys[1]!r}")
        if not keys or keys[0] not in wanted or ident not in annotations:
            continue
        if keys[0] in masks:
            raise DatasetError(path, f"two entries of images are {keys[0]!r}; its annotations belong to one")
        masks[keys[0]] = coco_source(path, annotations[ident], image.get("height"), image.get("width"))
    if not masks:
        name = next(iter(images.values()), {}).get("file_name")
        raise UsageError(
            f"{path} has no annotation of a selected image: it names images like {name!r}, the data set like "
            f"{next(iter(wanted))!r}"
        )
    return masks


def coco_source(
    path: Path,
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


def _coco_tables(path: Path) -> tuple[dict[Any, dict[str, Any]], dict[Any, list[dict[str, Any]]]]:
    """Return id -> entry of images, and id of image -> entries of annotations."""
    try:
        content = json.loads(read_bytes(path))
    except ValueError as error:
        raise DatasetError(path, f"not JSON: {error}") from None
    tables = content if isinstance(content, dict) else {}
    for name, needed in (("images", ("id", "file_name")), ("annotations", ("id", "image_id"))):
        if not isinstance(tables.get(name), list):
            raise DatasetError(path, f"expected a COCO file with a list {name!r}")
        for entry in tables[name]:
            if not isinstance(entry, dict) or any(isinstance(entry.get(n), (type(None), list, dict)) for n in needed):
                raise DatasetError(
                    path, f"expected {' and '.join(needed)} in an entry of {name}, got {str(entry)[:80]}"
                )
    images = {image["id"]: image for image in tables["images"]}
    if len(images) < len(tables["images"]):
        raise DatasetError(path, "two images have the same id")
    annotations = defaultdict(list)
    for annotation in tables["annotations"]:
        if annotation["image_id"] not in images:
            raise DatasetError(
                path, f"annotation {annotation['id']} is of an image {annotation['image_id']} not listed"
            )
        annotations[annotation["image_id"]].append(annotation)
    return images, annotations


def _keys_by_name(samples: Sequence[Sample]) -> dict[str, tuple[str, ...]]:
    """Return name in a COCO file -> keys that it can mean: by path, else by name alone."""
    top = _common_folder(samples)
    paths: dict[str, tuple[str, ...]] = {}
    names: dict[str, tuple[str, ...]] = defaultdict(tuple)
    for sample in samples:
        names[_same_form(PurePosixPath(sample.key).name)] += (sample.key,)
        paths[_same_form(sample.key.removeprefix(top))] = (sample.key,)
    paths |= {_same_form(sample.key): (sample.key,) for sample in samples}
    return {**names, **paths}
