"""Downloads of data sets from their official addresses: resumed, checked, and unpacked whole or not at all."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from fgfast.datasets import layout_named
from fgfast.datasets.unpacking import unpack
from fgfast.errors import DownloadError, OutputFailedError, UsageError
from fgfast.files import open_regular
from fgfast.transfer import Progress, Remote, fetch
from fgfast.writing import Target, make_folder, refuse_links, remove_tree, rename, replacing, scratch_folder


@dataclass(frozen=True, slots=True)
class Resource(Remote):
    """One file of a data set: an archive, or a file that is copied to the data set's folder.

    Attributes:
        below: the folder to unpack an archive into: "." is the data set's folder, ".." its parent, for archives that
            contain that folder.
    """

    below: str = "."


_OXFORD = "https://www.robots.ox.ac.uk/~vgg/data"
_GB = 10**9
# The archives have 1.2 GB (CUB), 2.8 GB (Aircraft), 0.8 GB (Pets' images) and 0.3 GB (Flowers); `most` is above that.
# Digests are from torchvision datasets/oxford_iiit_pet.py, datasets/flowers102.py and, for CUB_200_2011.tgz,
# prototype/datasets/_builtin/cub200.py (with an address at Google Drive instead of CaltechDATA). torchvision has none
# for Aircraft; its MD5 is the one that several public loaders check, among them that of torch for R.
RESOURCES = {
    "cub": (
        Resource(
            "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz?download=1",
            "sha256:0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081",
            "..",
            most=2 * _GB,
        ),
    ),
    "aircraft": (
        Resource(
            f"{_OXFORD}/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
            "md5:d4acdd33327262359767eeaa97a4f732",
            "..",
            most=4 * _GB,
        ),
    ),
    "pets": (
        Resource(f"{_OXFORD}/pets/data/images.tar.gz", "md5:5c4f3ee8e5d25df40f4fd59a7f44e54c", most=_GB),
        Resource(f"{_OXFORD}/pets/data/annotations.tar.gz", "md5:95a8c909bbe2e81eed6a22bccdf3f68f", most=_GB // 10),
    ),
    "flowers": (
        Resource(f"{_OXFORD}/flowers/102/102flowers.tgz", "md5:52808999861908f626f3c1f4e79d11fa", most=_GB),
        Resource(f"{_OXFORD}/flowers/102/imagelabels.mat", "md5:e0620be6f572b9609742df49c70aed4d", most=_GB // 100),
        Resource(f"{_OXFORD}/flowers/102/setid.mat", "md5:a5357ecc9cb78c4bef273ce3793fc85c", most=_GB // 100),
    ),
}


def download(name: str, into: Path, progress: Progress | None = None) -> Path:
    """Download a data set and unpack it as `into`/<its usual folder>.

    Downloaded files are kept beside that folder until all are complete, so that a second call resumes the first. An
    existing data set is not changed.

    Returns:
        The data set's folder.
    """
    layout = layout_named(name)
    if name not in RESOURCES:
        raise UsageError(f"{layout.title} has no address to download it from. {layout.how_to_get}")
    target = into / layout.usual_folders[0]
    if layout.recognises(target):
        return target
    if target.exists():
        raise UsageError(f"{target.absolute()} exists but has no {layout.expected}. Move it away, then try again.")
    fetched = into / f".fgfast-{name}"
    try:
        refuse_links([Target(into, fetched.name)])  # before anything is written below it
        files = [fetch(resource, fetched, progress) for resource in RESOURCES[name]]
        with scratch_folder(f".fgfast-{name}-", into) as temporary:
            folder = temporary / target.name
            make_folder(Target(temporary, target.name))
            for resource, file in zip(RESOURCES[name], files, strict=True):
                _place(resource, file, folder)
            stray = temporary / "attributes.txt"  # in CUB's archive beside the folder that its README names
            if stray.is_file() and (folder / "attributes").is_dir():
                rename(Target.file(stray), Target(folder, f"attributes/{stray.name}"))
            if not layout.recognises(folder):
                raise DownloadError(f"the archives of {layout.title} hold no {layout.expected}; nothing was unpacked")
            rename(Target.file(folder), Target.file(target))
        remove_tree(Target(into, fetched.name))
    except (OSError, OutputFailedError) as error:
        why = getattr(error, "strerror", None) or error
        raise DownloadError(
            f"cannot store {layout.title} in {into.absolute()}: {why}. Free space there "
            "or choose another folder, then try again; downloaded files are kept."
        ) from error
    return target


def _place(resource: Resource, file: Path, folder: Path) -> None:
    """Unpack an archive into the data set's new folder, or copy the file there."""
    if resource.file.endswith((".tgz", ".tar.gz")):
        unpack(file, folder.parent if resource.below == ".." else folder)
    else:
        with open_regular(file) as content, replacing(Target(folder, file.name)) as copy:
            shutil.copyfileobj(content, copy, 1 << 20)
