"""Where a pack comes from: a file, an address of the web, or a data set of the Hugging Face hub."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from fgfast.config import Settings
from fgfast.datasets.layout import Dataset
from fgfast.errors import UsageError
from fgfast.io.pack import MOST_BYTES, Pack, check_parquet
from fgfast.transfer import Remote, cache_folder, fetch, is_address

_HUB = re.compile(r"hf://datasets/([\w.-]+)/([\w.-]+)/([\w.-]+(?:/[\w.-]+)*)")
_PINNED = re.compile(r"#sha256=([0-9a-f]{64})")
_FORMS = "a file, an https:// address, or hf://datasets/OWNER/NAME/FILE"


def take_pack(given: str | Path, dataset: Dataset, positions: Sequence[int]) -> tuple[Pack, str]:
    """Read a pack, which is fetched first where it is elsewhere; return it, and a sentence about it for the plan.

    Args:
        given: the setting "masks_from".
        dataset: the data set.
        positions: of the selected samples.

    Raises:
        UsageError: it is no pack, or one of other images.
        DownloadError, OfflineError: it cannot be fetched.
    """
    check_parquet()
    keys = [dataset.samples[n].key for n in positions]
    path, kept = (_fetched(str(given)), True) if is_address(given) else (Path(given).expanduser(), False)
    pack = Pack.read(path)
    if pack.about.get("turn_exif") is not dataset.turn_exif:
        raise UsageError(
            f"the pack {given} is of images that were read {'without' if dataset.turn_exif else 'with'} their EXIF "
            "orientation, and this data set is read otherwise"
        )
    there = sum(key in pack.keys for key in keys)
    if not there:
        raise UsageError(f"the pack {given} has no image of this selection; it was made from {pack.about.get('title')}")
    place = f", kept in {path}; delete that to fetch it again" if kept else ""
    return pack, f"pack {given} (sha256 {pack.sha256}{place}): {there:,} of {len(keys):,} images are in it"


def place_of(given: str | Path, portable: Callable[[str | Path], str]) -> str:
    """Return how an output names a pack: an address as it is, a file in the form of `PortablePaths`."""
    return str(given) if is_address(given) else portable(Path(given).expanduser())


def with_otherwise(settings: Settings, reasons: list[str]) -> Settings:
    """Return the settings with the segmenter of the images that a pack has no mask of; without a pack, as they are.

    Raises:
        UsageError: a detector is named that has nothing to find.
    """
    if settings.masks_from is None:
        return settings
    none = settings.otherwise == "none"
    if none and settings.detector not in ("auto", "annotations"):
        raise UsageError(f"masks of a pack need no detector: omit --detector {settings.detector}, or add --otherwise")
    reasons.append(f"masks from a pack: {'images without one fail' if none else 'images without one are segmented'}")
    return replace(settings, segmenter="annotations" if none else settings.otherwise)


def _fetched(given: str) -> Path:
    """Return the file of an address in the cache, which is fetched once."""
    pinned = _PINNED.search(given)
    plain = given[: pinned.start()] if pinned else given
    if found := _HUB.fullmatch(plain):
        owner, name, file = found.groups()
        if ".." in plain.split("/") or "." in plain.split("/"):
            raise UsageError(f"masks-from {given} names no file of a data set of the hub")
        url = f"https://huggingface.co/datasets/{owner}/{name}/resolve/main/{file}"
    elif plain.startswith("https://") or (pinned and plain.startswith("http://")):
        url = plain
    else:
        raise UsageError(f"masks-from is {_FORMS}, not {given}; http:// only with #sha256=DIGEST behind it")
    remote = Remote(url, f"sha256:{pinned[1]}" if pinned else "", most=MOST_BYTES, mirrored=False)
    if not re.fullmatch(r"[\w.-]*[\w-][\w.-]*", remote.file):
        raise UsageError(f"masks-from {given} names no file: give {_FORMS}")
    return fetch(remote, cache_folder() / "packs" / hashlib.sha256(url.encode()).hexdigest()[:16])
