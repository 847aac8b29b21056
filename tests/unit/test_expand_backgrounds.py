"""Backgrounds: who gets which, what is left of the old ones, and what is said where there is none."""

from __future__ import annotations

import csv
import json
import pickle
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from expanding import planned as expansion
from layouts import SHARED, text
from PIL import Image

import fgfast
from fgfast import ops
from fgfast.config import Selection, Settings
from fgfast.datasets import open_dataset
from fgfast.errors import ImageBrokenError, MissingExtraError, UsageError
from fgfast.expand.background_files import background_files, category_of
from fgfast.expand.kind import Ending, Planned, Product, Request, Subject
from fgfast.expand.kinds.backgrounds import COLUMNS, MIXED, RECIPES, Options, plan
from fgfast.expand.kinds.backgrounds_step import LayOnBackground
from fgfast.expand.run import run
from fgfast.expand.run_source import Outcomes
from fgfast.ops.filling import MARGIN, share
from fgfast.pipeline.mending import Change, Mender
from fgfast.pipeline.twin import Twin
from fgfast.pools import Pools
from fgfast.records import Bool, Outcome, Sample, UInt8
from fgfast.seeds import number
from fgfast.writing import Target

WIDTH, HEIGHT = 48, 36
CLASSES = ("001.Auk", "002.Jay", "003.Tern")
EACH = 8  # images of a class; the first half of them are in train
LARGE = "images/001.Auk/Auk_0000.jpg"
"""An image whose subject's box is nearly all of it."""


def background_colour(n: int) -> tuple[int, int, int]:
    """The colour of the background of the nth image, which no other has."""
    return 40 + 5 * n, 250 - 7 * n, 30 + n


def birds(parent: Path) -> Path:
    """Twenty-four birds of three classes in the layout of CUB, each on a colour of its own."""
    root = parent / "CUB_200_2011"
    names = [f"{label}/{label[4:]}_{n:04d}.jpg" for label in CLASSES for n in range(EACH)]
    boxes = []
    for n, name in enumerate(names):
        pixels = np.empty((HEIGHT, WIDTH, 3), np.uint8)
        pixels[:] = background_colour(n)
        x0, y0, x1, y1 = (1, 1, 47, 35) if f"images/{name}" == LARGE else (10 + n % 5, 8, 30, 26)
        pixels[y0:y1, x0:x1] = (230, 20, 20)
        path = root / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, quality=100, subsampling=0)
        boxes.append(f"{n + 1} {x0}.0 {y0}.0 {x1 - x0}.0 {y1 - y0}.0")
    text(root / "images.txt", *(f"{n} {name}" for n, name in enumerate(names, 1)))
    text(root / "classes.txt", *(f"{n} {label}" for n, label in enumerate(CLASSES, 1)))
    text(root / "image_class_labels.txt", *(f"{n + 1} {n // EACH + 1}" for n in range(len(names))))
    text(root / "train_test_split.txt", *(f"{n + 1} {int(n % EACH < EACH // 2)}" for n in range(len(names))))
    text(root / "bounding_boxes.txt", *boxes)
    return root


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twin]:
    folder = tmp_path_factory.mktemp("backgrounds")
    settings = Settings(segmenter="box", format="png", masks="none")
    fgfast.convert("cub", folder / "out", root=birds(folder), settings=settings, in_process=True)
    with Twin(folder / "out") as opened:
        yield opened


def request_for(twin: Twin, seed: int = 0, without: tuple[str, ...] = ()) -> Request:
    keys = tuple(o.key for o in twin.entries(("done", "flagged")) if o.key not in without)
    return Request(twin, "backgrounds", seed, keys, keys, Outcomes(twin.output.ledger_path))


def subject_of(request: Request, planned: Planned, key: str, **more: Any) -> Subject:
    twin = request.twin
    outcome = request.outcome(key)
    given = json.loads(json.dumps(dict(planned.given(key))))
    names = (request.seed, request.kind, key)
    subject = Subject(request.sample(key), twin.image(key).pixels, twin.mask(outcome), given, names)
    return replace(subject, **more)


def made(request: Request, planned: Planned) -> dict[str, Product]:
    step = pickle.loads(pickle.dumps(planned.step))
    return {k: step(subject_of(request, planned, k)) for k in request.selected if k not in planned.unused}


def listed(request: Request, planned: Planned, folder: Path) -> list[dict[str, str]]:
    """The rows of backgrounds.csv."""
    outcomes = tuple(Outcome(key, "done", "write", twin=key) for key in request.selected if key not in planned.unused)
    assert planned.finish is not None
    ending = Ending(lambda name: Target(folder) / name, outcomes, planned.given, lambda name: iter(()))
    assert planned.finish(ending) == ["backgrounds.csv"]
    with (folder / "backgrounds.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def sources(request: Request, options: Options) -> dict[str, str]:
    planned = plan(request, options)
    return {key: planned.given(key)["source"] for key in request.selected if key not in planned.unused}


def number_of(key: str) -> int:
    """Which image a key is, in the order of the data set."""
    label, name = key.split("/")[1:]
    return CLASSES.index(label) * EACH + int(name[-8:-4])


# --- who gets which ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", MIXED)
def test_backgrounds_are_of_the_class_asked_for_and_of_the_same_split(twin: Twin, recipe: str) -> None:
    request = request_for(twin)
    found = sources(request, Options(recipe=recipe))
    assert set(found) == set(request.selected)
    for key, source in found.items():
        mine, other = (CLASSES.index(k.split("/")[1]) for k in (key, source))
        assert twin.splits()[key] == twin.splits()[source] and key != source != LARGE
        assert recipe == "mixed-rand" or other == (mine + (recipe == "mixed-next")) % 3
    if recipe == "mixed-rand":
        assert {key.split("/")[1] for key in found.values()} == set(CLASSES)
        assert len(set(found.values())) > 10


def test_the_seed_decides(twin: Twin) -> None:
    first, again, other = (sources(request_for(twin, seed), Options()) for seed in (0, 0, 1))
    assert first == again
    assert sum(first[key] != other[key] for key in first) > len(first) // 2


def test_a_sample_that_goes_changes_only_those_that_drew_it(twin: Twin) -> None:
    before = sources(request_for(twin), Options())
    for gone in set(before.values()):
        after = sources(request_for(twin, without=(gone,)), Options())
        assert all(after[key] == source for key, source in before.items() if source != gone and key != gone)
        assert gone not in after.values()


def test_all_candidates_are_drawn_about_equally_often() -> None:
    names = [f"a/{n}" for n in range(60)]
    pools = Pools({name: [0] for name in names}, lambda *more: number(3, *more))
    counts = Counter(pools.draw(0, f"b/{n}") for n in range(6000))
    assert set(counts) == set(names) and max(counts.values()) < 300


def test_nobody_draws_itself_or_from_nothing() -> None:
    pools = Pools({"a": [0, 1], "b": [0]}, lambda *more: number(0, *more))
    assert pools.draw(0, "a") == "b" and pools.draw(0, "b") == "a"
    assert pools.draw(1, "a") is None and pools.draw(1, "b") == "a" and pools.draw(2, "a") is None


def test_what_has_no_candidate_is_said(twin: Twin) -> None:
    auks = tuple(key for key in request_for(twin).usable if "Auk" in key)
    train = [key for key in auks if twin.splits()[key] == "train"]
    planned = plan(request_for(twin, without=tuple(k for k in auks if k != train[1])), Options(recipe="mixed-same"))
    assert planned.unused == {train[1]: "no other image of 001.Auk of the split train can be its background"}
    planned = plan(request_for(twin, without=auks), Options(recipe="mixed-next"))
    assert len(planned.unused) == EACH and all("001.Auk" in why for why in planned.unused.values())


def test_one_class_has_no_next(twin: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Twin, "labels", lambda self: dict.fromkeys(twin.splits(), "bird"))
    planned = plan(request_for(twin), Options(recipe="mixed-next"))
    assert set(planned.unused.values()) == {"there is no other class than bird"}
    monkeypatch.setattr(Twin, "labels", lambda self: dict.fromkeys(twin.splits(), ""))
    planned = plan(request_for(twin), Options(recipe="mixed-same"))
    assert set(planned.unused.values()) == {"it has no class, which mixed-same needs"}


def test_a_mask_without_pixels_and_one_that_is_damaged_are_said(twin: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    request = request_for(twin)
    empty, damaged = request.usable[3], request.usable[5]
    entries = list(twin.entries(("done", "flagged")))
    changed = {
        empty: ops.rle_encode(np.zeros((HEIGHT, WIDTH), np.bool_)),
        damaged: b"\xff\x00 no run lengths",
    }
    outcomes = [replace(o, rle=changed.get(o.key, o.rle)) for o in entries]
    monkeypatch.setattr(Twin, "entries", lambda self, statuses: iter(outcomes))
    planned = plan(request, Options())
    assert planned.unused == {
        empty: "its mask is empty: where its subject is is not known",
        damaged: "its mask cannot be read",
    }
    assert not {empty, damaged} & set(sources(request, Options()).values())
    assert any("1 are none, because their mask is empty" in reason for reason in planned.reasons)


def test_an_image_whose_mask_is_flagged_is_no_background(twin: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    request = request_for(twin)
    doubtful = set(sources(request, Options()).values())
    outcomes = [replace(o, status="flagged" if o.key in doubtful else "done") for o in twin.entries()]
    monkeypatch.setattr(Twin, "entries", lambda self, statuses: iter(outcomes))
    found = sources(request, Options())
    assert set(found) == set(request.selected) and not doubtful & set(found.values())
    reason = f"{len(doubtful)} are none, because their masks are flagged: their subject may not be where the mask is"
    assert reason in plan(request, Options()).reasons


# --- the images ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fill", ["tile", "inpaint"])
@pytest.mark.parametrize("edges", ["hard", "feathered"])
def test_an_image_is_its_subject_on_another_background(twin: Twin, fill: str, edges: str) -> None:
    request = request_for(twin)
    planned = plan(request, Options(fill=fill, edges=edges))
    products = made(request, planned)
    assert len(products) == len(request.selected)
    for key, product in products.items():
        pixels = product.images["mixed-rand"]
        bits = twin.mask(request.outcome(key))
        inside = np.abs(pixels[bits].astype(int) - (230, 20, 20)).max(axis=-1)
        assert np.median(inside) <= 8
        colour = background_colour(number_of(planned.given(key)["source"]))
        off = np.abs(pixels.astype(int) - colour).max(axis=-1)
        assert pixels.shape == (HEIGHT, WIDTH, 3)
        far = np.ones_like(bits)
        y, x = np.nonzero(bits)
        far[max(0, y.min() - 3) : y.max() + 4, max(0, x.min() - 3) : x.max() + 4] = False
        assert off[far].max(initial=0) <= 8, key  # no red of the background's own subject


def test_the_other_recipes(twin: Twin) -> None:
    request = request_for(twin)
    for recipe in RECIPES[3:]:
        planned = plan(request, Options(recipe=recipe, edges="hard" if recipe.endswith("-fg") else "feathered"))
        assert set(planned.unused) == ({LARGE} if recipe.startswith("only-bg") else set())
        for key, product in made(request, planned).items():
            (pixels,) = product.images.values()
            stored, bits = twin.image(key).pixels, twin.mask(request.outcome(key))
            if recipe == "only-fg":
                assert (pixels == np.where(bits[..., None], stored, 0)).all()
            elif recipe == "no-fg":
                assert (pixels == np.where(bits[..., None], 0, stored)).all()
            else:
                red = (pixels[..., 0] > 200) & (pixels[..., 1] < 60)
                assert not red.any() and (pixels == 0).all(axis=-1).any() == (recipe == "only-bg-b")


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_same_seed_gives_the_same_bytes(twin: Twin, recipe: str) -> None:
    request = request_for(twin)
    few = replace(request, selected=request.selected[3:6])
    first, again = (made(r, plan(r, Options(recipe=recipe))) for r in (request, few))
    assert all((product.images[recipe] == first[key].images[recipe]).all() for key, product in again.items())
    assert len(again) == 3


def test_colours_and_noise(twin: Twin) -> None:
    for kind in ("colours", "noise"):
        planned, other = (plan(request_for(twin, seed), Options(from_=kind, edges="hard")) for seed in (0, 1))
        request = request_for(twin)
        images = {key: product.images["mixed-rand"] for key, product in made(request, planned).items()}
        corners = {key: tuple(pixels[0, 0].tolist()) for key, pixels in images.items()}
        assert len(set(corners.values())) > 20
        if kind == "colours":
            assert corners[LARGE] == tuple(planned.given(LARGE)["colour"]) != tuple(other.given(LARGE)["colour"])
            assert all((p[0] == p[0, 0]).all() for p in images.values())
        else:
            assert np.std(images[request.selected[1]][0]) > 40
        with pytest.raises(UsageError, match="needs backgrounds with a class"):
            plan(request, Options(recipe="mixed-same", from_=kind))


# --- masks that are odd --------------------------------------------------------------------------------------------


def step(recipe: str = "mixed-rand", **more: Any) -> LayOnBackground:
    asked = {"fill": "tile", "feather": 3.0, "foreground": "blur-fusion", "most_filled": 0.6} | more
    return LayOnBackground(recipe=recipe, root=None, turn_exif=False, **asked)


def drawn(bits: Bool, **given: Any) -> Subject:
    pixels = np.random.default_rng(0).integers(0, 256, (*bits.shape, 3), dtype=np.uint8)
    return Subject(Sample("a.jpg", Path("a.jpg")), pixels, bits, given, (0, "backgrounds", "a.jpg"))


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("size", [(1, 1), (1, 30), (24, 30)])
def test_an_empty_mask_is_skipped(recipe: str, size: tuple[int, int]) -> None:
    product = step(recipe)(drawn(np.zeros(size, np.bool_), colour=[1, 2, 3]))
    assert "mask is empty" in product.skipped and not product.images


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("size", [(1, 1), (1, 30), (24, 30)])
def test_a_subject_that_covers_everything(recipe: str, size: tuple[int, int]) -> None:
    subject = drawn(np.ones(size, np.bool_), colour=[1, 2, 3])
    product = step(recipe)(subject)
    if recipe in ("only-bg-b", "only-bg-t"):
        assert product.skipped == "its subject's box covers 1.00 of the image, more than 0.6"
    elif recipe == "no-fg":
        assert product.skipped == "its subject covers the image: there is no background in it"
    else:
        assert (product.images[recipe] == subject.pixels).all() and product.flags == ("background hidden",)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_mask_at_the_border(recipe: str) -> None:
    bits = np.zeros((24, 30), np.bool_)
    bits[10:, 20:] = True
    subject = drawn(bits, colour=[1, 2, 3])
    pixels = step(recipe)(subject).images[recipe]
    corner = pixels[-1, -1].tolist()
    if recipe in MIXED or recipe == "only-fg":
        assert corner == subject.pixels[-1, -1].tolist()
    else:
        assert (corner == [0, 0, 0]) == (recipe != "only-bg-t")
    assert (pixels[0, 0].tolist() == subject.pixels[0, 0].tolist()) == (recipe not in (*MIXED, "only-fg"))


# --- files that are backgrounds ------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Thirty-six plain images of three categories, in Places' folders."""
    for n, category in enumerate(("b/bamboo_forest", "f/forest/broadleaf", "o/ocean")):
        for i in range(12):
            path = tmp_path / "places" / "data_large" / category / f"{i:08d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20 + i, 30), (n * 90, 5 * i, 60)).save(path, quality=100)
    (tmp_path / "places" / "data_large" / "readme.txt").write_text("no image")
    return tmp_path / "places"


def test_no_file_is_used_by_two_splits(twin: Twin, folder: Path) -> None:
    request = request_for(twin)
    planned = plan(request, Options(from_=f"places:{folder}", edges="hard"))
    rows = listed(request, planned, folder.parent)
    used = {split: {row["source"] for row in rows if row["split"] == split} for split in ("train", "test")}
    assert used["train"] and used["test"] and not used["train"] & used["test"]
    assert all(row["source_split"] == row["split"] and row["fill"] == "none" for row in rows)
    assert {row["source_class"] for row in rows} == {"bamboo_forest", "forest/broadleaf", "ocean"}
    for key, product in made(request, planned).items():
        given = planned.given(key)
        n = ["bamboo_forest", "forest/broadleaf", "ocean"].index(given["source_class"])
        colour = n * 90, 5 * int(given["source"][-6:-4]), 60
        assert np.abs(product.images["mixed-rand"][0, 0].astype(int) - colour).max() < 6


@pytest.mark.parametrize("recipe", ["mixed-same", "mixed-next"])
def test_each_class_gets_a_category(twin: Twin, folder: Path, recipe: str) -> None:
    request = request_for(twin)
    planned = plan(request, Options(recipe=recipe, from_=str(folder)))
    kinds = ["bamboo_forest", "forest/broadleaf", "ocean"]
    for key in request.selected:
        n = CLASSES.index(key.split("/")[1]) + (recipe == "mixed-next")
        assert planned.given(key)["source_class"] == kinds[n % 3]
    with pytest.raises(UsageError, match="use mixed-rand"):
        plan(request, Options(recipe=recipe, from_=str(folder), categories="ocean"))


def test_categories_are_chosen_and_a_wrong_one_is_said(twin: Twin, folder: Path) -> None:
    request = request_for(twin)
    planned = plan(request, Options(from_=str(folder), categories="ocean, forest/broadleaf"))
    assert {planned.given(key)["source_class"] for key in request.selected} == {"ocean", "forest/broadleaf"}
    with pytest.raises(
        UsageError, match=r"no images of the category 'sea'. It has bamboo_forest, forest/broadleaf, ocean"
    ):
        plan(request, Options(from_=str(folder), categories="sea"))


@pytest.mark.parametrize(
    ("name", "category"),
    [
        ("1.jpg", ""),
        ("ocean/1.jpg", "ocean"),
        ("o/ocean/1.jpg", "ocean"),
        ("data_256/f/forest/broadleaf/1.jpg", "forest/broadleaf"),
        ("train/forest-broadleaf/1.jpg", "forest-broadleaf"),
        ("a/b/1.jpg", "a/b"),
    ],
)
def test_the_category_of_a_file(name: str, category: str) -> None:
    assert category_of(name) == category


def test_folders_that_cannot_be_used_are_said(twin: Twin, tmp_path: Path) -> None:
    request = request_for(twin)
    with pytest.raises(UsageError, match=r"there is no folder .*nowhere: --from takes set, colours, noise"):
        plan(request, Options(from_=str(tmp_path / "nowhere")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no image"):
        plan(request, Options(from_=f"places:{tmp_path / 'empty'}"))
    Image.new("RGB", (4, 4)).save(tmp_path / "empty" / "one.png")
    with pytest.raises(UsageError, match="has 1 image, and none is left for t"):
        plan(request, Options(from_=str(tmp_path / "empty")))


def test_a_broken_or_missing_background_fails_its_sample_and_is_named(twin: Twin, folder: Path) -> None:
    request = request_for(twin)
    planned = plan(request, Options(from_=str(folder)))
    first, second = request.selected[:2]
    broken, missing = (folder / planned.given(key)["source"] for key in (first, second))
    broken.write_bytes(b"no image")
    with pytest.raises(ImageBrokenError, match=broken.name):
        planned.step(subject_of(request, planned, first))
    if missing != broken:
        missing.unlink()
        with pytest.raises(ImageBrokenError, match=f"its background cannot be used: .*{missing.name}"):
            planned.step(subject_of(request, planned, second))
        assert planned.given(second) != plan(request, Options(from_=str(folder))).given(second)


def test_files_that_come_change_the_fingerprint_and_few_draws(twin: Twin, folder: Path) -> None:
    request = request_for(twin)
    before, drawn_before = plan(request, Options(from_=str(folder))), sources(request, Options(from_=str(folder)))
    Image.new("RGB", (9, 9)).save(folder / "data_large" / "o" / "ocean" / "new.png")
    after, drawn_after = plan(request, Options(from_=str(folder))), sources(request, Options(from_=str(folder)))
    assert before.fingerprint != after.fingerprint and "background_names" in after.fingerprint
    assert all(drawn_after[key] in (source, "data_large/o/ocean/new.png") for key, source in drawn_before.items())


def test_links_out_of_the_folder_are_not_followed(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.jpg"
    Image.new("RGB", (4, 4)).save(secret)
    (folder / "link.jpg").symlink_to(secret)
    assert "link.jpg" not in background_files(str(folder)).categories
    (folder / "out").symlink_to(tmp_path.parent)
    with pytest.raises(UsageError, match="cannot be listed"):
        background_files(str(folder))


def test_a_background_whose_file_has_changed_is_not_used(twin: Twin, tmp_path: Path) -> None:
    request = request_for(twin)
    planned = plan(request, Options())
    key = request.selected[0]
    subject = subject_of(request, planned, key)
    with pytest.raises(ImageBrokenError, match="is not the file of which the run made a mask"):
        planned.step(replace(subject, given={**subject.given, "sha256": "00" * 32}))


# --- what is recorded ----------------------------------------------------------------------------------------------


def test_the_listing_names_every_background(twin: Twin, tmp_path: Path) -> None:
    request = request_for(twin, seed=7)
    planned = plan(request, Options())
    rows = listed(request, planned, tmp_path)
    assert tuple(rows[0]) == COLUMNS and [row["key"] for row in rows] == list(request.selected)
    for row in rows:
        given = planned.given(row["key"])
        assert row["source"] == given["source"] and row["source_class"] == row["source"].split("/")[1]
        assert row["source_split"] == row["split"] and (row["recipe"], row["seed"]) == ("mixed-rand", "7")
        n = number_of(row["source"]) % 5
        x0, y0, x1, y1 = 10 + n - MARGIN, 8 - MARGIN, 30 + MARGIN, 26 + MARGIN
        filled = share((x0, y0, x1, y1), (HEIGHT, WIDTH))
        # The mask's box is the annotated one, up to a pixel of rounding.
        assert abs(float(row["filled_share"]) - filled) < 0.06 and row["fill"] == "tile"
    planned = plan(request, Options(from_="colours"))
    row = listed(request, planned, tmp_path)[0]
    assert row["source"] == "#" + bytes(planned.given(row["key"])["colour"]).hex() and row["fill"] == "colour"
    rows = listed(request, plan(request, Options(recipe="only-bg-t")), tmp_path)
    assert all(row["source"] == row["key"] and row["source_class"] == row["label"] for row in rows)


def test_what_was_chosen_is_said(twin: Twin) -> None:
    planned = plan(request_for(twin), Options())
    assert planned.reasons[:2] == ("recipe mixed-rand", "23 of 24 images can be backgrounds")
    assert "1 are none, because more than 0.6 of them would have to be filled" in planned.reasons
    assert not planned.warnings
    assert "shines through" in plan(request_for(twin), Options(foreground="none")).warnings[0]
    assert "hard" in plan(request_for(twin), Options(edges="hard")).warnings[0]


def test_options_without_effect_say_why() -> None:
    def idle(name: str, **more: Any) -> str:
        setting = Options.__dataclass_fields__[name].metadata["setting"]
        return str(setting.idle(Options(**more)))

    assert "no-fg, which lays no subject" in idle("from_", recipe="no-fg")
    assert idle("fill", from_="noise") and idle("most_filled", from_="noise") and idle("categories")
    assert idle("feather", edges="hard") and idle("foreground", edges="hard") and idle("edges", recipe="only-bg-b")
    for name in ("from_", "fill", "most_filled", "edges", "feather", "foreground"):
        assert not idle(name), name


def test_pymatting_is_an_extra(twin: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fgfast.expand.kinds.backgrounds.find_spec", lambda name: None)
    with pytest.raises(
        MissingExtraError, match="--foreground pymatting needs the package pymatting of the extra 'matting'"
    ):
        plan(request_for(twin), Options(foreground="pymatting"))


def test_pymatting_estimates_the_colours() -> None:
    pytest.importorskip("pymatting", reason="the extra matting is not installed")
    bits = np.zeros((40, 50), np.bool_)
    bits[10:30, 10:40] = True
    products = [step(foreground="pymatting")(drawn(bits, colour=[1, 2, 3])).images["mixed-rand"] for _ in range(2)]
    assert (products[0] == products[1]).all()


# --- whole expansions ----------------------------------------------------------------------------------------------


def files_of(out: Path) -> dict[str, bytes]:
    """The files that an expansion wrote, without those that hold times."""
    found = {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    return {name: data for name, data in found.items() if not name.startswith("fgfast/")}


def test_an_expansion_is_a_data_set_and_its_list(twin: Twin, tmp_path: Path) -> None:
    with expansion(twin.out, "backgrounds", tmp_path / "alone") as whole:
        report = run(whole, in_process=True)
    alone = files_of(tmp_path / "alone")
    assert report.counts["done"] == 24 and len([name for name in alone if name.endswith(".jpg")]) == 24
    assert alone["mixed-rand/images.txt"] == (twin.dataset.root / "images.txt").read_bytes()
    again = open_dataset("cub", tmp_path / "alone" / "mixed-rand").samples
    assert [(s.key, s.label, s.split) for s in again] == [(s.key, s.label, s.split) for s in twin.dataset.samples]
    with expansion(twin.out, "backgrounds", tmp_path / "two") as whole:
        run(whole, workers=2)
    assert files_of(tmp_path / "two") == alone
    with expansion(twin.out, "backgrounds", tmp_path / "some", selection=Selection(limit=5)) as whole:
        run(whole, in_process=True)
    some = {name: data for name, data in files_of(tmp_path / "some").items() if name.endswith(".jpg")}
    assert len(some) == 5 and some.items() <= alone.items()
    rows = list(csv.DictReader(alone["backgrounds.csv"].decode().splitlines()))
    with Image.open(tmp_path / "alone" / "mixed-rand" / rows[0]["image"]) as image:
        assert image.size == (WIDTH, HEIGHT)


def test_a_mask_that_is_corrected_changes_who_has_it_as_background(tmp_path: Path) -> None:
    out, settings = tmp_path / "run", Settings(segmenter="box", format="png", masks="none")
    fgfast.convert("cub", out, root=birds(tmp_path), settings=settings, in_process=True)
    with expansion(out, "backgrounds", tmp_path / "out") as whole:
        run(whole, in_process=True)
    before = files_of(tmp_path / "out")
    rows = list(csv.DictReader(before["backgrounds.csv"].decode().splitlines()))
    corrected = rows[0]["source"]
    bits = np.zeros((HEIGHT, WIDTH), np.bool_)
    bits[4:28, 6:34] = True
    with Mender.open(out) as mender:
        mender.decide([Change(corrected, "mask", "brush", 0, bits=bits)], "me")
    with expansion(out, "backgrounds", tmp_path / "out") as whole:
        report = run(whole, in_process=True)
    changed = {row["key"] for row in rows if row["source"] == corrected} | {corrected}
    assert set(report.changes.changed) == changed and report.resumed == 24 - len(changed)
    after = files_of(tmp_path / "out")
    images = {name for name in after if name.endswith(".jpg") and after[name] != before[name]}
    assert images <= {f"mixed-rand/{key}" for key in changed} and images


# --- photographs ---------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not SHARED.is_dir(), reason="the photographs beside the repository are not here")
def test_photographs_of_birds(tmp_path: Path) -> None:
    settings = Settings(segmenter="box", masks="none")
    out = tmp_path / "out"
    fgfast.convert(
        "cub", out, root=SHARED / "CUB_200_2011", settings=settings, selection=Selection(limit=8), in_process=True
    )
    with Twin(out) as twin:
        request = request_for(twin)
        planned = plan(request, Options())
        products = made(request, planned)
        assert len(products) + len(planned.unused) == len(request.selected)
        for key, product in products.items():
            pixels: UInt8 = product.images["mixed-rand"]
            assert pixels.shape == twin.image(key).pixels.shape and pixels.std() > 10
