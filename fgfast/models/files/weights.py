"""Weights by name: what there is, where it lies, how it comes, and whether it is what it should be. No torch here.

    names() -> find() is it on this machine?   path() use it   pull() fetch it   verify() hash it again   status() all

Models of the Hugging Face hub live in its own cache (HF_HOME): fgfast.models.files.hub. What is hashed when:
fgfast.models.files.digests.
"""

from __future__ import annotations

import importlib.util
import logging
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from filelock import FileLock

from fgfast.errors import DownloadError, ModelNotCachedError, UnknownNameError, WeightsError
from fgfast.models.files import digests, hub
from fgfast.transfer import Progress, Remote, cache_folder, fetch

log = logging.getLogger("fgfast")


@dataclass(frozen=True, slots=True)
class Model:
    """What a name stands for.

    Attributes:
        title: for a person.
        files: of the official addresses; the first is the one that `path` leads to.
        snapshot: instead of files, a snapshot of the Hugging Face hub.
        needs: names that are fetched with it.
    """

    title: str
    files: tuple[Remote, ...] = ()
    snapshot: hub.Snapshot | None = None
    needs: tuple[str, ...] = ()


_SAM = "https://dl.fbaipublicfiles.com/segment_anything"
_DETIC = "https://dl.fbaipublicfiles.com/detic"
# Detic at the commit that golden/DETIC.md describes.
_DETIC_METADATA = "https://raw.githubusercontent.com/facebookresearch/Detic/436cda2a2347df60a7c66daca0e8c59f93dc5e79/datasets/metadata"
# SAM. SHA-256: computational-cell-analytics/micro-sam, micro_sam/util.py at 00006fc6. Sizes: CHECKPOINT_SIZES of Dafne
# (Dafne-Imaging Team). The digits in the files' names begin their MD5, as Sanster/IOPaint,
# iopaint/plugins/interactive_seg.py at 2f833029, checks it; they are not of the SHA-256.
# LVIS. Both hashed here from the repository at that commit.
# Detic's checkpoint: no digest or size is published anywhere we looked; it is pinned when it is first seen.
MODELS = MappingProxyType(
    {
        "sam_vit_b": Model(
            "SAM ViT-B",
            (
                Remote(
                    f"{_SAM}/sam_vit_b_01ec64.pth",
                    "sha256:ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
                    size=375_042_383,
                ),
            ),
        ),
        "sam_vit_l": Model(
            "SAM ViT-L",
            (
                Remote(
                    f"{_SAM}/sam_vit_l_0b3195.pth",
                    "sha256:3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
                    size=1_249_524_607,
                ),
            ),
        ),
        "sam_vit_h": Model(
            "SAM ViT-H",
            (
                Remote(
                    f"{_SAM}/sam_vit_h_4b8939.pth",
                    "sha256:a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
                    size=2_564_550_879,
                ),
            ),
        ),
        "detic": Model(
            "Detic Swin-B",
            (Remote(f"{_DETIC}/Detic_LI21k_CLIP_SwinB_896b32_4x_ft4x_max-size.pth", ""),),
            needs=("lvis",),
        ),
        "lvis": Model(
            "LVIS vocabulary",
            (
                Remote(
                    f"{_DETIC_METADATA}/lvis_v1_clip_a+cname.npy",
                    "sha256:16059f1fe5f7d857273d16a1b7c6d6141a88d133e99a107be5065f42311da0f8",
                    size=1_232_000,
                ),
                Remote(
                    f"{_DETIC_METADATA}/lvis_v1_train_cat_info.json",
                    "sha256:56abd7581b779fb62b167a52c76026839eabbfb5bfb12986e6170fbe0111fe40",
                    size=268_947,
                ),
            ),
        ),
        "grounding_dino_tiny": Model("Grounding DINO tiny", snapshot=hub.GROUNDING_DINO_TINY),
        "grounding_dino_base": Model("Grounding DINO base", snapshot=hub.GROUNDING_DINO_BASE),
        "clip_text": Model("CLIP ViT-B/32 text encoder", snapshot=hub.CLIP),
    }
)


@dataclass(frozen=True, slots=True)
class Finding:
    """What is known of one model on this machine.

    Attributes:
        name, title: of the model.
        size: bytes of all its files; None where unknown before they are fetched.
        path: its first file, or its folder; None where it is not cached whole.
        verified: its files were hashed once, agreed, and have not been touched since.
        digest: "published" where the expected digest is known beforehand, "pinned" where it was noted at first sight,
            "none" where it will be.
        converted: a safetensors copy lies beside the checkpoint, and is of this very checkpoint.
    """

    name: str
    title: str
    size: int | None
    path: Path | None
    verified: bool
    digest: str
    converted: bool = False

    @property
    def cached(self) -> bool:
        """Whether it is on this machine."""
        return self.path is not None


def names() -> tuple[str, ...]:
    """The names that can be pulled."""
    return tuple(MODELS)


def model(name: str) -> Model:
    """What `name` stands for; raises UnknownNameError."""
    try:
        return MODELS[name]
    except KeyError:
        raise UnknownNameError("model", name, MODELS) from None


def folder() -> Path:
    """Where checkpoints are kept. It may not exist yet."""
    return cache_folder() / "models"


def find(name: str) -> Path | None:
    """The model's first file (of the hub: its folder) if it is whole on this machine. Nothing is hashed."""
    chosen = model(name)
    if chosen.snapshot:
        return chosen.snapshot.find()
    files = [folder() / remote.file for remote in chosen.files]
    sizes = [file.stat().st_size if file.is_file() else None for file in files]
    whole = all(
        size is not None and remote.size in (None, size) for remote, size in zip(chosen.files, sizes, strict=True)
    )
    return files[0] if whole else None


def path(name: str, file: str | None = None) -> Path:
    """The model's first file, or the one called `file` (of the hub: its folder), checked.

    Raises:
        ModelNotCachedError: it is not on this machine; says what to type.
        WeightsError: it is not the expected file.
    """
    chosen = model(name)
    found = find(name)
    if found is None:
        raise ModelNotCachedError(name, chosen.title, _missing(chosen))
    if chosen.snapshot:
        chosen.snapshot.verify(found)
        return found
    for remote in chosen.files:
        digests.checked(folder() / remote.file, remote.digest)
    return folder() / (file or chosen.files[0].file)


def _missing(chosen: Model) -> Path:
    """A place where we looked in vain."""
    if chosen.snapshot:
        return chosen.snapshot.place()
    files = [folder() / remote.file for remote in chosen.files]
    absent = [file for file in files if not file.is_file()]
    return absent[0] if absent else files[0]


def pull(name: str, progress: Progress | None = None) -> Path:
    """Fetch a model and what it needs, unless it is there; check it; convert its checkpoint for fast loading.

    Raises:
        DownloadError: a transfer failed or brought something else; what was fetched is kept where it can be resumed.
        OfflineError: FGFAST_OFFLINE is set and something is missing.
    """
    chosen = model(name)
    for needed in chosen.needs:
        pull(needed, progress)
    if chosen.snapshot:
        found = chosen.snapshot.pull()
        chosen.snapshot.verify(found)
        return found
    done = _finding(name)
    if done.path and done.verified and (done.converted or done.path.suffix != ".pth"):
        return done.path
    with _locked(chosen.title):
        for remote in chosen.files:
            _pull_file(remote, progress)
        checkpoint = folder() / chosen.files[0].file
        if checkpoint.suffix == ".pth" and not digests.converted(checkpoint):
            _convert(checkpoint)
    return checkpoint


@contextmanager
def _locked(title: str) -> Iterator[None]:
    """One process at a time writes to the folder."""
    try:
        folder().mkdir(parents=True, exist_ok=True)
        with FileLock(folder() / ".lock"):
            yield
    except OSError as error:
        raise DownloadError(
            f"cannot store {title} in {folder()}: {error.strerror or error}. Free space there, or set FGFAST_CACHE to "
            "another folder; what was fetched is kept."
        ) from error


def _pull_file(remote: Remote, progress: Progress | None) -> None:
    file = folder() / remote.file
    if remote.size is not None and file.is_file() and file.stat().st_size != remote.size:
        file.unlink()  # half a file, saved by hand or by another program
    if not file.is_file():
        fetch(remote, folder(), progress)
        if file.suffix == ".pth" and not zipfile.is_zipfile(file):
            with file.open("rb") as content:
                beginning = content.read(16)
            file.unlink()
            raise DownloadError(
                f"{remote.address()} is no checkpoint but begins with {beginning!r}: perhaps a network's sign-in page, "
                "or an old address. The file was removed; try again, or set FGFAST_MIRROR."
            )
    digests.checked(file, remote.digest)


def _convert(checkpoint: Path) -> None:
    if all(importlib.util.find_spec(package) for package in ("torch", "safetensors")):
        from fgfast.models.files import states

        states.convert(checkpoint)
    else:
        log.warning(
            "%s is loaded as it is; for faster loading: pip install 'fgfast[models]', then pull again", checkpoint.name
        )


def verify(name: str) -> Finding:
    """Hash every file of a model again.

    Raises:
        ModelNotCachedError: it is not on this machine.
        WeightsError: a file is not the expected one.
    """
    chosen = model(name)
    found = find(name)
    if found is None:
        raise ModelNotCachedError(name, chosen.title, _missing(chosen))
    if chosen.snapshot:
        chosen.snapshot.verify(found, again=True)
    for remote in chosen.files:
        file = folder() / remote.file
        digests.checked(file, remote.digest, again=True)
        if copy := digests.converted(file):
            try:
                digests.checked(copy, again=True)
            except WeightsError as error:
                copy.unlink()
                raise WeightsError(
                    copy, f"was damaged and has been removed; make it anew: fgfast models pull {name}"
                ) from error
    return _finding(name)


def status() -> list[Finding]:
    """What is known of every model. Nothing is hashed."""
    return [_finding(name) for name in MODELS]


def _finding(name: str) -> Finding:
    chosen, found = model(name), find(name)
    if chosen.snapshot:
        verified = found is not None and chosen.snapshot.verified(found)
        return Finding(name, chosen.title, chosen.snapshot.size, found, verified, "published")
    files = [folder() / remote.file for remote in chosen.files]
    notes = [digests.recorded(file) for file in files]
    sizes = [file.stat().st_size if file.is_file() else r.size for r, file in zip(chosen.files, files, strict=True)]
    known = [size for size in sizes if size is not None]
    published = all(remote.digest for remote in chosen.files)
    pinned = all(remote.digest or digests.pinned(file) for remote, file in zip(chosen.files, files, strict=True))
    return Finding(
        name,
        chosen.title,
        sum(known) if len(known) == len(sizes) else None,
        found,
        verified=found is not None and all(notes),
        digest="published" if published else "pinned" if pinned else "none",
        converted=digests.converted(files[0]) is not None,
    )
