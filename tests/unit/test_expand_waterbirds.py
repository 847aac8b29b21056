"""Waterbirds: the published recipe, seeded; its images, its list, its readers."""

from __future__ import annotations

import csv
import dataclasses
import json
import pickle
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from drawn_places import drawn_places, places
from layouts import SHARED, SUBJECT, cub, make_image, text
from PIL import Image

from fgfast.bench.drawn import drawn
from fgfast.data_paths import DataPath
from fgfast.datasets import open_dataset
from fgfast.errors import ImageBrokenError, ImageMissingError, ImageRefusedError, MaskUnusableError, UsageError
from fgfast.expand.kind import Ending, Product, Request, Subject
from fgfast.expand.kinds import waterbirds, waterbirds_recipe
from fgfast.expand.kinds.waterbirds import COLUMNS, Options, plan
from fgfast.expand.matching import lowest, once_each
from fgfast.expand.places import folder_of, images_in
from fgfast.ops.pasting import cover_crop, hard_levels, paste
from fgfast.records import Outcome, Size, UInt8
from fgfast.seeds import number
from fgfast.writing import Target

SPECIES = (Path(__file__).parents[1] / "data" / "cub_classes.txt").read_text().split()
MISTAKES = ["021.Eastern_Towhee", "088.Western_Meadowlark", "102.Western_Wood_Pewee"]
FOLDER = "waterbird_complete95_forest2water2"
# Images of each class, to train and to test; halves and twentieths of the classes' sums are no whole numbers.
TRAIN, TEST = 9, 3


def all_species(parent: Path, train: int = TRAIN, test: int = TEST) -> Path:
    """CUB's lists with its 200 class names and drawn file names; no images."""
    root = parent / "CUB_200_2011"
    classes = [f"{n:03d}.{name}" for n, name in enumerate(SPECIES, 1)]
    images = [(label, f"{label}/{label[4:]}_{i:04d}.jpg", i < train) for label in classes for i in range(train + test)]
    text(root / "classes.txt", *(f"{n} {label}" for n, label in enumerate(classes, 1)))
    text(root / "images.txt", *(f"{n} {name}" for n, (_, name, _) in enumerate(images, 1)))
    labels = (f"{n} {classes.index(label) + 1}" for n, (label, _, _) in enumerate(images, 1))
    text(root / "image_class_labels.txt", *labels)
    text(root / "train_test_split.txt", *(f"{n} {int(trained)}" for n, (_, _, trained) in enumerate(images, 1)))
    return root


@pytest.fixture(scope="module")
def species(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CUB's lists of 200 species, made once."""
    return all_species(tmp_path_factory.mktemp("species"))


@pytest.fixture(scope="module")
def empty_places(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Places with empty files, 900 a category, made once."""
    return str(places(tmp_path_factory.mktemp("places"), 900))


def request_for(root: Path, seed: int = 0, without: tuple[str, ...] = (), name: str = "cub") -> Request:
    """A request about all images of a data set, whose run need not be there: the plan asks the data set alone."""
    dataset = open_dataset(name, root)
    by_key = {sample.key: sample for sample in dataset.samples}
    twin: Any = SimpleNamespace(source=SimpleNamespace(dataset=name), dataset=dataset, sample=by_key.__getitem__)
    keys = tuple(key for key in by_key if key not in without)
    nothing: Any = None  # what the ledger says is not asked
    return Request(twin, "waterbirds", seed, keys, keys, nothing)


# --- the recipe ----------------------------------------------------------------------------------------------------


def published_birds(labels: list[str]) -> dict[str, int]:
    """Which classes the published script calls waterbirds, by its own steps."""
    names = "Albatross Auklet Cormorant Frigatebird Fulmar Gull Jaeger Kittiwake Pelican Puffin Tern Gadwall Grebe"
    names += " Mallard Merganser Guillemot Pacific_Loon"
    found = {}
    for label in labels:
        found[label] = 0
        for name in names.split():
            if name.lower() in label.split(".")[1].lower():
                found[label] = 1
    return found


def test_the_label_mistakes_are_these_three_of_two_hundred_and_no_other() -> None:
    labels = [f"{n:03d}.{name}" for n, name in enumerate(SPECIES, 1)]
    assert len(set(labels)) == 200
    by_words = {label: waterbirds_recipe.bird(label) for label in labels}
    as_published = {label: waterbirds_recipe.bird(label, as_published=True) for label in labels}
    assert as_published == published_birds(labels)
    assert [label for label in labels if by_words[label] != as_published[label]] == MISTAKES
    assert all(by_words[label] == 0 for label in MISTAKES)
    # Seven terns, eight gulls, four grebes, ... ; the published list holds 43 classes, three of them by mistake.
    assert sum(as_published.values()) - sum(by_words.values()) == 3
    assert by_words["086.Pacific_Loon"] == by_words["053.Western_Grebe"] == by_words["066.Western_Gull"] == 1


@pytest.mark.parametrize("as_published", [False, True])
@pytest.mark.parametrize("strength", [0.95, 0.5, 1.0])
def test_groups_have_the_sizes_that_the_recipe_gives(
    species: Path, empty_places: str, as_published: bool, strength: float
) -> None:
    request = request_for(species)
    chosen = Options(empty_places, strength=strength, as_published=as_published)
    planned = plan(request, chosen)
    given = {key: planned.given(key) for key in request.usable}
    splits = Counter(row["split"] for row in given.values())
    assert splits == {0: 1440, 1: 360, 2: 600}
    sizes = Counter((row["split"], row["y"], row["place"]) for row in given.values())
    for split in (0, 1, 2):
        for y in (0, 1):
            birds = [row for row in given.values() if (row["split"], row["y"]) == (split, y)]
            share = (1 - strength, strength)[y] if split == 0 else 0.5
            on_water = int(np.round(share * len(birds)))
            assert (sizes[split, y, 1], sizes[split, y, 0]) == (on_water, len(birds) - on_water)
    waterbirds_in_test = sum(waterbirds_recipe.bird(label, as_published) for label in request.twin.dataset.classes)
    assert sum(row["y"] for row in given.values() if row["split"] == 2) == TEST * waterbirds_in_test
    assert all(request.sample(key).split == ("test" if row["split"] == 2 else "train") for key, row in given.items())
    assert planned.sets == (f"waterbird_complete{100 * strength:g}_forest2water2",)
    assert planned.quality == (75 if as_published else None)
    assert len(planned.reasons) == 3 and json.dumps(list(given.values()))
    assert bool(planned.warnings) == as_published and all(
        m in "".join(planned.warnings) for m in MISTAKES * as_published
    )


def test_no_place_is_used_twice_and_each_is_of_its_side(species: Path, empty_places: str) -> None:
    request = request_for(species)
    planned = plan(request, Options(empty_places))
    rows = [planned.given(key) for key in request.usable]
    assert len({row["file"] for row in rows}) == len({row["place_filename"] for row in rows}) == len(rows) == 2400
    categories = Counter((row["place"], row["place_filename"].rpartition("/")[0]) for row in rows)
    assert set(categories) == {
        (0, "/b/bamboo_forest"),
        (0, "/f/forest/broadleaf"),
        (1, "/o/ocean"),
        (1, "/l/lake/natural"),
    }
    assert all(row["file"] == f"data_large{row['place_filename']}" for row in rows)


def test_another_seed_is_another_data_set_and_the_same_seed_the_same(species: Path, empty_places: str) -> None:
    options = Options(empty_places)
    rows = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        request = request_for(species, seed)
        planned = plan(request, options)
        rows[name] = {key: planned.given(key) for key in request.usable}
    assert rows["a"] == rows["b"]
    for column in ("split", "place", "place_filename"):
        assert sum(rows["a"][key][column] != rows["c"][key][column] for key in rows["a"]) > 100


def test_one_image_less_changes_few_others(species: Path, empty_places: str) -> None:
    request, options = request_for(species), Options(empty_places)
    before, gone = plan(request, options), request.usable[4]
    after = plan(request_for(species, without=(gone,)), options)
    changed = [k for k in request.usable if k != gone and before.given(k) != after.given(k)]
    assert len(changed) < 30
    assert after.given(gone) == {} and after.warnings


# --- what cannot be done -------------------------------------------------------------------------------------------


def test_too_few_places_are_counted_per_side(tmp_path: Path) -> None:
    request, root = request_for(all_species(tmp_path, 2, 0)), places(tmp_path / "places", 20)
    with pytest.raises(UsageError) as told:
        plan(request, Options(str(root)))
    planned = plan(request, Options(str(places(tmp_path / "enough", 400))))
    needed = Counter(planned.given(key)["place"] for key in request.usable)
    assert needed[0] > 40 and needed[1] > 40
    for side, name in enumerate(("land", "water")):
        assert f"{needed[side] - 40:,} images are missing for {name}" in str(told.value)
    assert "bamboo_forest and forest/broadleaf" in str(told.value)


def test_just_enough_places_are_enough(tmp_path: Path) -> None:
    request = request_for(all_species(tmp_path, 2, 0))
    planned = plan(request, Options(str(places(tmp_path / "many", 400))))
    needed = Counter(planned.given(key)["place"] for key in request.usable)
    root = places(tmp_path / "places", 0)
    for side, folder in enumerate(("b/bamboo_forest", "o/ocean")):
        for n in range(needed[side]):
            (root / "data_large" / folder / f"{n}.jpg").touch()
    given = plan(request, Options(str(root))).given
    assert len({given(key)["file"] for key in request.usable}) == len(request.usable) == sum(needed.values())


def test_only_cub_with_its_split(tmp_path: Path) -> None:
    from layouts import pets

    options = Options(str(places(tmp_path / "places", 5)))
    with pytest.raises(UsageError, match="alone; this run is of pets"):
        plan(request_for(pets(tmp_path), name="pets"), options)
    root = cub(tmp_path)
    (root / "train_test_split.txt").unlink()
    with pytest.raises(UsageError, match=r"put train_test_split\.txt into"):
        plan(request_for(root), options)


def test_what_is_missing_is_told_with_its_way_out(tmp_path: Path) -> None:
    request = request_for(cub(tmp_path))
    with pytest.raises(UsageError, match="--places"):
        plan(request, Options())
    with pytest.raises(UsageError, match="is no folder"):
        plan(request, Options(str(tmp_path / "nowhere")))
    (tmp_path / "half/b/bamboo_forest").mkdir(parents=True)
    with pytest.raises(UsageError, match="'forest/broadleaf'"):
        plan(request, Options(str(tmp_path / "half")))
    root = str(places(tmp_path / "places", 5))
    with pytest.raises(UsageError, match=r"segmentations\.tgz"):
        plan(request, Options(root, masks="official"))
    with pytest.raises(UsageError, match="none that may be used"):
        plan(request_for(cub(tmp_path), without=request.usable), Options(root))


# --- Places --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "way",
    [
        "data_large/l/lake/natural",
        "l/lake/natural",
        "data_256/l/lake/natural",
        "data_256_standard/l/lake/natural",
        "data_large_standard/l/lake/natural",
        "train/lake-natural",
        "lake_natural",
        "lake/natural",
    ],
)
def test_places_are_found_in_each_layout(tmp_path: Path, way: str) -> None:
    (tmp_path / way).mkdir(parents=True)
    for name in ("2.jpg", "1.JPG", ".hidden.jpg", "notes.txt"):
        (tmp_path / way / name).touch()
    found = images_in(DataPath(str(tmp_path)), ["lake/natural"])
    assert list(found) == ["/l/lake/natural/1.JPG", "/l/lake/natural/2.jpg"]
    assert found["/l/lake/natural/2.jpg"].below == f"{way}/2.jpg"
    with pytest.raises(UsageError, match="'ocean'"):
        folder_of(DataPath(str(tmp_path)), "ocean")


def test_a_ring_gives_each_taker_its_own_offer() -> None:
    numbers = {name: number(0, name) for name in [*map(str, range(300)), *(f"t{n}" for n in range(300))]}
    offers, takers = [str(n) for n in range(300)], [f"t{n}" for n in range(300)]
    whole = once_each(takers, offers, numbers.__getitem__, numbers.__getitem__)
    assert list(whole) == takers and sorted(whole.values()) == sorted(offers)
    few = once_each(takers[:100], offers, numbers.__getitem__, numbers.__getitem__)
    assert few == {name: whole[name] for name in takers[:100]}
    fewer = once_each(takers[1:100], offers, numbers.__getitem__, numbers.__getitem__)
    assert sum(fewer[name] != few[name] for name in fewer) < 10
    with pytest.raises(ValueError, match="as many"):
        once_each(takers, offers[1:], numbers.__getitem__, numbers.__getitem__)
    assert once_each([], [], int, int) == {}


def test_the_lowest_are_a_share_rounded_as_numpy_rounds() -> None:
    for count in range(12):
        for share in (0, 0.05, 0.2, 0.5, 0.95, 1):
            names = [f"n{n}" for n in range(count)]
            assert len(lowest(names, share, lambda name: number(0, name))) == int(np.round(share * count))


# --- pixels --------------------------------------------------------------------------------------------------------


def published_cover(pixels: UInt8, width: int, height: int) -> UInt8:
    """The published crop_and_resize, written down from its description: LANCZOS was called ANTIALIAS."""
    image = Image.fromarray(pixels)
    while image.width < width or image.height < height:
        other = (width, int(width / image.width * image.height))
        if other[1] < height:
            other = (int(height / image.height * image.width), height)
        assert other[0] >= width and other[1] >= height
        image = image.resize(other, Image.Resampling.LANCZOS)
    if image.width / image.height > width / height:
        cut = (image.width - int(width / height * image.height)) // 2
        box = (cut, 0, image.width - cut, image.height)
    else:
        cut = (image.height - int(image.width / (width / height))) // 2
        box = (0, cut, image.width, image.height - cut)
    return np.asarray(image.crop(box).resize((width, height), Image.Resampling.LANCZOS))


@pytest.mark.parametrize("own", [(64, 64), (256, 256), (300, 90), (90, 300), (120, 77), (51, 201), (7, 5), (500, 333)])
@pytest.mark.parametrize("size", [(60, 80), (80, 60), (99, 33), (1, 1), (120, 120)])
def test_the_crop_covers_as_the_published_one(own: tuple[int, int], size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(own[0]).integers(0, 256, (*own, 3), dtype=np.uint8)
    assert np.array_equal(cover_crop(pixels, Size(*size)), published_cover(pixels, size[1], size[0]))


def test_a_crop_of_extreme_shapes() -> None:
    for own in ((1, 1), (1, 900), (900, 1)):
        pixels = np.full((*own, 3), 77, np.uint8)
        for size in (Size(1, 1), Size(1, 50), Size(50, 1), Size(37, 21)):
            covered = cover_crop(pixels, size)
            assert covered.shape == (*size, 3) and (covered == 77).all()
    with pytest.raises(ImageRefusedError, match="at most"):
        cover_crop(np.zeros((1, 9000, 3), np.uint8), Size(9000, 9000))


def test_the_mixture_is_the_published_one_to_the_level() -> None:
    generator = np.random.default_rng(0)
    first, second = (generator.integers(0, 256, (256, 300, 3), dtype=np.uint8) for _ in range(2))
    levels = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 300, 1)
    share = levels[:, :, None] / 255
    wanted = np.around(first * share).astype(np.uint8) + np.around(second * (1 - share)).astype(np.uint8)
    assert np.array_equal(paste(first, second, levels), wanted)
    white = np.full_like(first, 255)
    assert (paste(white, white, levels) == 255).all()
    with pytest.raises(ValueError, match="agree"):
        paste(first, second, levels[1:])


# --- images --------------------------------------------------------------------------------------------------------


def bird_subject(planned: Any, request: Request, key: str) -> Subject:
    sample = request.sample(key)
    pixels = np.asarray(Image.open(sample.path))
    bits = np.zeros(pixels.shape[:2], np.bool_)
    x0, y0, x1, y1 = SUBJECT
    bits[y0:y1, x0:x1] = True
    return Subject(sample, pixels, bits, planned.given(key), (request.seed, request.kind, key))


def segmentation(root: Path, key: str, level: int, width: int = 48) -> None:
    """An official mask: the subject where all agree, and columns beside it where some do."""
    mask = np.zeros((36, width), np.uint8)
    x0, y0, x1, y1 = SUBJECT
    mask[y0:y1, x0:x1] = 255
    mask[y0:y1, x1 : x1 + 4] = level
    path = root / "segmentations" / Path(key.removeprefix("images/")).with_suffix(".png")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)


def made(product: Product) -> UInt8:
    (pixels,) = product.images.values()
    return pixels


def test_the_bird_is_on_its_place(tmp_path: Path) -> None:
    request = request_for(cub(tmp_path))
    planned = plan(request, Options(str(drawn_places(tmp_path / "places")), edges="hard"))
    step = pickle.loads(pickle.dumps(planned.step))
    for key in request.usable:
        subject = bird_subject(planned, request, key)
        pixels = made(step(subject))
        assert np.array_equal(pixels[subject.bits], subject.pixels[subject.bits])
        outside = pixels[~subject.bits].astype(int)
        channel = (1, 2)[planned.given(key)["place"]]
        assert (outside.argmax(axis=1) == channel).all() and (outside[:, channel] > 110).all()
    assert planned.below == "images" and not planned.annotated


def test_feathered_edges_take_nothing_of_the_old_background_along(tmp_path: Path) -> None:
    request = request_for(cub(tmp_path))
    options = Options(str(drawn_places(tmp_path / "places")))
    soft, hard = plan(request, options), plan(request, dataclasses.replace(options, edges="hard"))
    bird_, key = drawn(0.8), request.usable[0]
    place = np.asarray(Image.open(tmp_path / "places" / soft.given(key)["file"]))[0, 0].astype(np.float32)
    pixels = np.rint(bird_.on(np.array([255, 0, 255], np.float32))).astype(np.uint8)
    subject = Subject(request.sample(key), pixels, bird_.alpha >= 0.5, soft.given(key), (0, "waterbirds", key))
    band = (bird_.alpha > 0.02) & (bird_.alpha < 0.98)
    errors = [np.abs(made(p.step(subject)) - bird_.on(place))[band].mean() for p in (soft, hard)]
    assert errors[0] < 0.5 * errors[1]
    inside = bird_.alpha > 0.9999
    inside = cv2.erode(inside.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    assert np.array_equal(made(soft.step(subject))[inside], pixels[inside])


def test_official_masks_are_soft_as_published_or_hard(tmp_path: Path) -> None:
    root = cub(tmp_path)
    request = request_for(root)
    for key in request.usable:
        segmentation(root, key, 102)
    places_root = str(drawn_places(tmp_path / "places"))
    x0, y0, x1, y1 = SUBJECT
    for edges, own in (("soft", 102), ("hard", 0)):
        planned = plan(request, Options(places_root, masks="official", edges=edges))
        key = request.usable[0]
        subject = bird_subject(planned, request, key)
        pixels = made(planned.step(subject)).astype(int)
        place = np.asarray(Image.open(Path(places_root) / planned.given(key)["file"]))[0, 0].astype(int)
        band = subject.pixels[y0:y1, x1 : x1 + 4].astype(int)
        wanted = np.around(band * own / 255) + np.around(place * (255 - own) / 255)
        assert (
            np.abs(pixels[y0:y1, x1 : x1 + 4] - wanted).max() <= 1
        )  # the JPEG of the place is not quite of one colour
        assert np.array_equal(pixels[y0:y1, x0:x1], subject.pixels[y0:y1, x0:x1])


def test_masks_and_places_that_cannot_be_used_are_outcomes(tmp_path: Path) -> None:
    root = cub(tmp_path)
    request, places_root = request_for(root), drawn_places(tmp_path / "places")
    segmentation(root, request.usable[0], 102)
    segmentation(root, request.usable[1], 102, width=40)
    official = plan(request, Options(str(places_root), masks="official"))
    assert set(official.unused) == set(request.usable[2:]) and "no official mask" in official.unused[request.usable[2]]
    with pytest.raises(MaskUnusableError, match="40x36"):
        official.step(bird_subject(official, request, request.usable[1]))
    planned = plan(request, Options(str(places_root)))
    subject = bird_subject(planned, request, request.usable[0])
    empty = Subject(subject.sample, subject.pixels, np.zeros_like(subject.bits), subject.given, subject.names)
    assert "empty" in planned.step(empty).skipped
    whole = Subject(subject.sample, subject.pixels, np.ones_like(subject.bits), subject.given, subject.names)
    product = planned.step(whole)
    assert product.flags == ("background hidden",) and np.array_equal(made(product), subject.pixels)
    file = places_root / subject.given["file"]
    file.write_bytes(b"no image")
    with pytest.raises(ImageBrokenError, match=file.name):
        planned.step(subject)
    file.unlink()
    with pytest.raises(ImageMissingError):
        planned.step(subject)


def test_a_link_out_of_places_is_not_followed(tmp_path: Path) -> None:
    root, outside = drawn_places(tmp_path / "places"), make_image(tmp_path / "outside.jpg")
    for path in root.rglob("*.jpg"):
        path.unlink()
        path.symlink_to(outside)
    request = request_for(cub(tmp_path))
    planned = plan(request, Options(str(root)))
    with pytest.raises(ImageRefusedError, match="link"):
        planned.step(bird_subject(planned, request, request.usable[0]))


# --- the list ------------------------------------------------------------------------------------------------------


def written(request: Request, options: Options, out: Path) -> tuple[Path, list[str]]:
    """Write the data set as the runner does: PNGs under the names that the plan says, then the plan's own files."""
    planned, outcomes = plan(request, options), []
    (folder,) = planned.sets
    for key in request.usable:
        name = Path(key.removeprefix(f"{planned.below}/")).with_suffix(".png").as_posix()
        path = out / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(made(planned.step(bird_subject(planned, request, key)))).save(path)
        outcomes.append(Outcome(key, "done", "write", twin=name))
    target = Target(out)
    ending = Ending(lambda path: target / path, tuple(outcomes), planned.given, lambda table: iter(()))
    assert planned.finish is not None
    return out / folder, planned.finish(ending)


def group_dro(folder: Path) -> list[tuple[tuple[int, ...], int, int, str]]:
    """A reader of our own of group-DRO's format: size of the image, y, group and split."""
    with (folder / "metadata.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert tuple(rows[0]) == ("img_id", "img_filename", "y", "split", "place", "place_filename") == COLUMNS
    splits = {"0": "train", "1": "val", "2": "test"}
    return [
        (np.asarray(Image.open(folder / name)).shape[:2], int(y), 2 * int(y) + int(place), splits[split])
        for _, name, y, split, place, _ in rows[1:]
    ]


def test_the_list_is_read_as_group_dro_reads_it_and_by_our_own_adapter(tmp_path: Path) -> None:
    root = cub(tmp_path / "in")
    request = request_for(root)
    options = Options(str(drawn_places(tmp_path / "places")))
    folder, files = written(request, options, tmp_path / "out")
    assert files == [f"{FOLDER}/metadata.csv"] and folder.name == FOLDER
    items, planned = group_dro(folder), plan(request, options)
    assert len(items) == 4
    for key, (size, y, group, split) in zip(request.usable, items, strict=True):
        given = planned.given(key)
        assert size == (36, 48) and y == given["y"] and group == 2 * y + given["place"]
        assert split == ("train", "val", "test")[given["split"]]
    first = (folder / "metadata.csv").read_text().splitlines()[1]
    assert first.startswith("1,001.Auk/Auk_0001_10.png,0,") and first.count(",") == 5
    opened = open_dataset(str(folder))
    assert opened.name == "waterbirds" and len(opened.samples) == 4
    assert [sample.split for sample in opened.samples] == [item[3] for item in items]
    assert all(Path(sample.path).is_file() for sample in opened.samples)


def test_wilds_reads_its_layout(tmp_path: Path) -> None:
    root = cub(tmp_path / "in")
    request = request_for(root)
    options = Options(str(drawn_places(tmp_path / "places")), layout="wilds")
    folder, files = written(request, options, tmp_path / "out")
    assert files == ["waterbirds_v1.0/metadata.csv", "waterbirds_v1.0/RELEASE_v1.0.txt"]
    assert "wilds" in open_dataset(str(folder)).load_line(folder, {})


# --- a real piece of CUB -------------------------------------------------------------------------------------------


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/photos is not here")
def test_real_birds_are_albatrosses_on_land_and_water(tmp_path: Path) -> None:
    request = request_for(SHARED / "CUB_200_2011")
    planned = plan(request, Options(str(drawn_places(tmp_path / "places", 30))))
    given = [planned.given(key) for key in request.usable]
    assert all(row["y"] == 1 for row in given) and len({row["file"] for row in given}) == 31
    key = request.usable[0]
    sample = request.sample(key)
    pixels = np.asarray(Image.open(sample.path).convert("RGB"))
    bits = np.zeros(pixels.shape[:2], np.bool_)
    bits[100:200, 100:200] = True
    product = planned.step(Subject(sample, pixels, bits, planned.given(key), (0, "waterbirds", key)))
    assert np.array_equal(made(product)[102:198, 102:198], pixels[102:198, 102:198])


def test_the_options_are_of_the_words_that_the_plan_knows() -> None:
    assert hard_levels(np.array([[True, False]])).tolist() == [[255, 0]]
    assert waterbirds.Options().strength == 0.95 and waterbirds.Options().masks == "ours"
