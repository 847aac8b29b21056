"""Weights by name: find, fetch, check and convert them. No torch here.

See fgfast.models.files.hub for models of the Hugging Face hub, and fgfast.models.files.digests for hashing.
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

from fgfast.errors import (
    DownloadError,
    ModelNotCachedError,
    OutputFailedError,
    UnknownNameError,
    WeightsError,
    install_command,
)
from fgfast.models.files import digests, hub
from fgfast.transfer import Progress, Remote, cache_folder, check_online, fetch
from fgfast.writing import Target, locked, remove

log = logging.getLogger("fgfast")


@dataclass(frozen=True, slots=True)
class Model:
    """A model whose weights can be fetched.

    Attributes:
        title: name to display.
        files: at their official addresses; `path` returns the first.
        snapshot: a snapshot of the Hugging Face hub, instead of files.
        needs: names of models that are fetched with it.
    """

    title: str
    files: tuple[Remote, ...] = ()
    snapshot: hub.Snapshot | None = None
    needs: tuple[str, ...] = ()

    @property
    def paths(self) -> list[Path]:
        """Where the files are stored on this machine; empty for a snapshot."""
        return [folder() / remote.file for remote in self.files]


_SAM = "https://dl.fbaipublicfiles.com/segment_anything"
_DETIC = "https://dl.fbaipublicfiles.com/detic"
# Detic at the commit that golden/DETIC.md describes.
_DETIC_METADATA = "https://raw.githubusercontent.com/facebookresearch/Detic/436cda2a2347df60a7c66daca0e8c59f93dc5e79/datasets/metadata"


def _sam(file: str, size: int, sha256: str) -> Model:
    remote = Remote(f"{_SAM}/sam_vit_{file}.pth", f"sha256:{sha256}", size=size)
    return Model(f"SAM ViT-{file[0].upper()}", (remote,))


# SAM. SHA-256: computational-cell-analytics/micro-sam, micro_sam/util.py at 00006fc6. Sizes: CHECKPOINT_SIZES of Dafne
# (Dafne-Imaging Team). The digits in the file names are the beginning of their MD5 (checked by Sanster/IOPaint,
# iopaint/plugins/interactive_seg.py at 2f833029), not of their SHA-256.
# LVIS. Both hashed by us from the repository at that commit.
# Detic's checkpoint: we found no published digest or size; it is pinned at first sight.
MODELS = MappingProxyType(
    {
        "sam_vit_b": _sam("b_01ec64", 375_042_383, "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912"),
        "sam_vit_l": _sam(
            "l_0b3195", 1_249_524_607, "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622"
        ),
        "sam_vit_h": _sam(
            "h_4b8939", 2_564_550_879, "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e"
        ),
        "detic": Model(
            "Detic Swin-B",
            (Remote(f"{_DETIC}/Detic_LI21k_CLIP_SwinB_896b32_4x_ft4x_max-size.pth", "", most=4 << 30),),
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
    """The state of one model on this machine.

    Attributes:
        name, title: of the model.
        size: bytes of all its files; None where unknown before they are fetched.
        path: its first file, or its folder; None where it is not cached completely.
        verified: whether its files were hashed, matched, and have not changed since.
        digest: "published" where the expected digest is known in advance, "pinned" where the one of the first file
            seen here was noted, which nobody else vouches for; "none" where it has yet to be noted.
        converted: whether there is a safetensors copy of this very checkpoint.
    """

    name: str
    title: str
    size: int | None
    path: Path | None
    verified: bool
    digest: str
    converted: bool = False


def names() -> tuple[str, ...]:
    """Return the names of the models that can be pulled."""
    return tuple(MODELS)


def model(name: str) -> Model:
    """Return the model with this name; raises UnknownNameError."""
    try:
        return MODELS[name]
    except KeyError:
        raise UnknownNameError("model", name, MODELS) from None


def published(name: str) -> bool:
    """Whether the digests of all files of a model's weights are published."""
    return all(remote.digest for remote in model(name).files)


def folder() -> Path:
    """Return the folder of the checkpoints, which may not exist yet."""
    return cache_folder() / "models"


def find(name: str) -> Path | None:
    """Return the model's first file (of the hub: its folder) if it is complete on this machine; nothing is hashed."""
    chosen = model(name)
    if chosen.snapshot:
        return chosen.snapshot.find()
    complete = all(
        file.is_file() and remote.size in (None, file.stat().st_size)
        for remote, file in zip(chosen.files, chosen.paths, strict=True)
    )
    return chosen.paths[0] if complete else None


def _cached(name: str) -> tuple[Model, Path]:
    """Return a model and what `find` found; raises ModelNotCachedError."""
    chosen, found = model(name), find(name)
    if found is not None:
        return chosen, found
    paths = [chosen.snapshot.place()] if chosen.snapshot else chosen.paths
    raise ModelNotCachedError(name, chosen.title, next((file for file in paths if not file.is_file()), paths[0]))


def path(name: str, file: str | None = None) -> Path:
    """Return the model's first file, or the one called `file` (of the hub: its folder), checked.

    Raises:
        ModelNotCachedError: it is not on this machine; the message gives the command to type.
        WeightsError: it is not the expected file.
    """
    chosen, found = _cached(name)
    if chosen.snapshot:
        chosen.snapshot.verify(found)
        return found
    for remote in chosen.files:
        digests.checked(folder() / remote.file, remote.digest)
    return found.with_name(file) if file else found


def pull(name: str, progress: Progress | None = None) -> Path:
    """Fetch a model and those it needs, unless they are cached; check it; convert its checkpoint for fast loading.

    Raises:
        DownloadError: a transfer failed or returned another file; a partial file that can be resumed is kept.
        OfflineError: FGFAST_OFFLINE is set and a file is missing.
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
    for remote in chosen.files:
        check_online(remote, folder())
    with _locked(chosen.title):
        for remote in chosen.files:
            _pull_file(remote, progress)
        checkpoint = chosen.paths[0]
        if checkpoint.suffix == ".pth" and not digests.converted(checkpoint):
            _convert(checkpoint)
    return checkpoint


@contextmanager
def _locked(title: str) -> Iterator[None]:
    """Hold the folder's lock, so that one process at a time writes to it."""
    try:
        with locked(Target(folder(), ".lock")):
            yield
    except (OSError, OutputFailedError) as error:
        why = getattr(error, "strerror", None) or error
        raise DownloadError(
            f"cannot store {title} in {folder()}: {why}. Free space there, or set FGFAST_CACHE to "
            "another folder; the files fetched so far are kept."
        ) from error


def _pull_file(remote: Remote, progress: Progress | None) -> None:
    file = folder() / remote.file
    if remote.size is not None and file.is_file() and file.stat().st_size != remote.size:
        remove(Target.file(file))  # incomplete, saved manually or by another program
    if not file.is_file():
        fetch(remote, folder(), progress)
        if file.suffix == ".pth" and not zipfile.is_zipfile(file):
            with file.open("rb") as content:
                start = content.read(16)
            remove(Target.file(file))
            raise DownloadError(
                f"{remote.address()} is not a checkpoint; it starts with {start!r}. Perhaps it is a network's sign-in "
                "page, or the address is outdated. The file was removed; try again, or set FGFAST_MIRROR."
            )
    digests.checked(file, remote.digest)


def _convert(checkpoint: Path) -> None:
    if all(importlib.util.find_spec(package) for package in ("torch", "safetensors")):
        from fgfast.models.files import states

        states.convert(checkpoint)
    else:
        log.warning(
            "%s is not converted; for faster loading: %s, then pull again", checkpoint.name, install_command("models")
        )


def verify(name: str) -> Finding:
    """Hash every file of a model again and return its state.

    Raises:
        ModelNotCachedError: it is not on this machine.
        WeightsError: a file is not the expected one.
    """
    chosen, found = _cached(name)
    if chosen.snapshot:
        chosen.snapshot.verify(found, again=True)
    for remote in chosen.files:
        file = folder() / remote.file
        digests.checked(file, remote.digest, again=True)
        if copy := digests.converted(file):
            try:
                digests.checked(copy, again=True)
            except WeightsError as error:
                remove(Target.file(copy))
                raise WeightsError(
                    copy, f"was damaged and has been removed; recreate it: fgfast models pull {name}"
                ) from error
    return _finding(name)


def status() -> list[Finding]:
    """Return the state of every model; nothing is hashed."""
    return [_finding(name) for name in MODELS]


def _finding(name: str) -> Finding:
    chosen, found = model(name), find(name)
    if chosen.snapshot:
        verified = found is not None and chosen.snapshot.verified(found)
        return Finding(name, chosen.title, chosen.snapshot.size, found, verified, "published")
    files = chosen.paths
    notes = [_matches(digests.recorded(file), r.digest) for r, file in zip(chosen.files, files, strict=True)]
    sizes = [file.stat().st_size if file.is_file() else r.size for r, file in zip(chosen.files, files, strict=True)]
    known = [size for size in sizes if size is not None]
    pinned = all(remote.digest or digests.pinned(file) for remote, file in zip(chosen.files, files, strict=True))
    return Finding(
        name,
        chosen.title,
        sum(known) if len(known) == len(sizes) else None,
        found,
        verified=found is not None and all(notes),
        digest="published" if published(name) else "pinned" if pinned else "none",
        converted=digests.converted(files[0]) is not None,
    )


def _matches(sha256: str, published: str) -> bool:
    """Whether a noted digest is the published one, if there is one."""
    return bool(sha256) and (not published.startswith("sha256:") or published == f"sha256:{sha256}")
