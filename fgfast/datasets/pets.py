"""Oxford-IIIT Pet: id lists, one trimap per image, and VOC files with boxes of heads.

https://www.robots.ox.ac.uk/~vgg/data/pets/
"""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fgfast.data_paths import AnyPath, DataPath, LinkOutError
from fgfast.datasets.annotation_files import (
    Box,
    boxes_from,
    copy_file,
    fields_of,
    keep_lines,
    read_lines,
    rewrite_lines,
    safe_key,
    short,
    unique_samples,
    write_bytes,
)
from fgfast.datasets.layout import Dataset, ImagePlacement, ImagePlacements
from fgfast.datasets.loaders import torchvision_line
from fgfast.datasets.voc_files import rewrite_voc
from fgfast.errors import DatasetError
from fgfast.files import NotAFileError, open_regular
from fgfast.image_formats import open_image
from fgfast.mask_source import MaskKind
from fgfast.records import Sample
from fgfast.writing import Target

LISTS = {"trainval": "train", "test": "test"}
# Trimap values, from the data set's annotations/README: 1 foreground, 2 background, 3 border.
BACKGROUND = 2
_SUBJECT = [255 if value in (1, 3) else 0 for value in range(256)]
_TRIMAP = ("PNG",)
# Inflating a PNG releases the GIL. Trimaps of 500 x 375 take 0.65 ms each with 1 thread and 0.4 ms with 8 on two cores.
_THREADS = 8
# Of the 37 breeds; a larger number is a misread line.
_MOST_CLASSES = 1000


def _subject_box(path: AnyPath) -> list[Box]:
    """Return the box around a trimap's foreground and border, none where it has neither or is missing."""
    try:
        with open_regular(path) as file, open_image(file, _TRIMAP) as trimap:
            box = trimap.point(_SUBJECT).getbbox()
    except FileNotFoundError:
        return []
    except (LinkOutError, NotAFileError) as error:
        raise DatasetError(path, f"cannot be read: {error.strerror}") from error
    except Exception as error:  # Pillow's readers raise many kinds on damaged content
        raise DatasetError(path, f"not a PNG, or a damaged one: {error}") from error
    return [] if box is None else [(float(box[0]), float(box[1]), float(box[2]), float(box[3]))]


def _write_trimap(source: AnyPath, target: Target, placement: ImagePlacement) -> Target:
    """Write the trimap's part in the crop window; pixels outside the stored image are background."""
    from PIL import Image

    with open_regular(source) as file, open_image(file, _TRIMAP) as trimap:
        window = Image.new(trimap.mode, (placement.size.width, placement.size.height), BACKGROUND)
        if trimap.mode == "P":
            window.putpalette(trimap.getpalette() or [])
        window.paste(trimap, (-placement.offset[0], -placement.offset[1]))
    buffer = io.BytesIO()
    window.save(buffer, "PNG")
    return write_bytes(target, buffer.getvalue(), sync=False)


def breed_of(ident: str) -> str:
    """Return an id's breed in torchvision's spelling: `great_pyrenees_12` -> `Great Pyrenees`."""
    return " ".join(part.title() for part in ident.rsplit("_", 1)[0].split("_"))


class Pets(Dataset):
    """Oxford-IIIT Pet.

    A sample's box is the bounding box of its trimap; the VOC boxes enclose the head only and are not used.
    """

    name = "pets"
    title = "Oxford-IIIT Pet"
    how_to_get = "`fgfast datasets --download pets` fetches it (800 MB) from Oxford."
    expected = "annotations/trainval.txt or annotations/test.txt"
    usual_folders = ("oxford-iiit-pet", "oxford_iiit_pet", "pets")
    subject = ("cat", "dog")
    fixed_names = True
    masks_from = "Its masks are annotations/trimaps, of annotations.tar.gz."

    @classmethod
    def recognises(cls, path: AnyPath) -> bool:
        """Whether annotations/ holds one of the lists."""
        return any((path / f"annotations/{name}.txt").is_file() for name in LISTS)

    @classmethod
    def count(cls, root: AnyPath) -> int | None:
        """Count the lines of the lists."""
        lists = [root / f"annotations/{name}.txt" for name in LISTS]
        return sum(len(read_lines(path)) for path in lists if path.is_file())

    @classmethod
    def _read(cls, root: DataPath, labels: str | None) -> Pets:
        """Read trainval.txt, test.txt and the trimaps of their images."""
        entries, number_of = [], {}
        for name, split in LISTS.items():
            path = root / f"annotations/{name}.txt"
            for number, text in read_lines(path) if path.is_file() else ():
                if text.startswith("#"):
                    continue
                ident, index, _, _ = fields_of(path, number, text, ("name", "class", "species", "breed"))
                key = safe_key(path, f"{ident}.jpg", number, "images")
                number_of[breed_of(ident)] = cls._class_number(path, number, index)
                entries.append((ident, key, split))
        trimaps = [root / f"annotations/trimaps/{ident}.png" for ident, _, _ in entries]
        with ThreadPoolExecutor(_THREADS) as pool:
            boxes = pool.map(_subject_box, trimaps)
            samples = [
                Sample(key, root / key, breed_of(ident), split, boxes_from(path, found))
                for (ident, key, split), path, found in zip(entries, trimaps, boxes, strict=True)
            ]
        # A class without an image in the lists keeps its number, and has no other name.
        names = {number: breed for breed, number in number_of.items()}
        classes = tuple(names.get(number, str(number)) for number in range(1, max(names, default=0) + 1))
        return cls(root, classes, unique_samples(root / "annotations", samples))

    @staticmethod
    def _class_number(path: AnyPath, number: int, text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= _MOST_CLASSES):
            raise DatasetError(path, f"expected a class number from 1, got {short(text)}", number)
        return int(text)

    def masks(self) -> tuple[MaskKind, dict[str, AnyPath]] | None:
        """Return the trimaps."""
        folder = self.root / "annotations/trimaps"
        if not folder.is_dir():
            return None
        return "trimap", {sample.key: folder / f"{Path(sample.key).stem}.png" for sample in self.samples}

    def load_line(self, twin: Path, placements: ImagePlacements) -> str:
        """Return the line for torchvision's OxfordIIITPet."""
        there = {sample.split for sample in self.samples if sample.key in placements}
        split = next((name for name, split in LISTS.items() if split in there), "trainval")
        return torchvision_line("OxfordIIITPet", twin.parent, split=split)

    def _write(self, out: Target, placements: ImagePlacements) -> list[Target]:
        """Write the lists, and the trimap and VOC file, where the data set has them, of each image that is present."""
        same = self._unchanged(placements)
        keep = keep_lines({Path(key).stem for key in placements})

        def edit(text: str, number: int) -> str | None:
            return text if text.startswith("#") else keep(text, number)

        written = []
        for name in ("README", "list.txt", "trainval.txt", "test.txt"):
            source, target = self.root / "annotations" / name, out / "annotations" / name
            if source.is_file():
                copied = same or name == "README"
                written.append(copy_file(source, target) if copied else rewrite_lines(source, target, edit))
        for sample in self.samples:
            if sample.key in placements:
                written += self._write_beside(Path(sample.key).stem, sample.key, out, placements[sample.key])
        return written

    def _write_beside(self, ident: str, key: str, out: Target, placement: ImagePlacement) -> list[Target]:
        """Write the trimap and the VOC file of one image, where the data set has them."""
        written = []
        trimap, voc = f"annotations/trimaps/{ident}.png", f"annotations/xmls/{ident}.xml"
        if (source := self.root / trimap).is_file():
            target = out / trimap
            cropped = _write_trimap(source, target, placement) if placement.moved else None
            written.append(cropped or copy_file(source, target, sync=False))
        if (source := self.root / voc).is_file():
            target = out / voc
            edited = None if placement.same_as(key) else rewrite_voc(source, target, placement)
            written.append(edited or copy_file(source, target, sync=False))
        return written
