"""What a study is trained and tested on: pairs of a run, splits, arms; batches, of which none is lost or moved."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from layouts import SHARED, cub
from PIL import Image
from study_pairs import birds

import fgfast
from fgfast.config import Settings
from fgfast.errors import ImageBrokenError, UnknownNameError, UsageError
from fgfast.ops.filling import box_to_fill
from fgfast.pipeline.twin import Twin
from fgfast.records import UInt8
from fgfast.studies.arms import FILLS, Fill, Shown
from fgfast.studies.pairs import Pair, RunPairs
from fgfast.studies.splits import check_disjoint, holdout, train_and_test


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over four images of two classes."""
    place = tmp_path_factory.mktemp("run")
    out = place / "out"
    settings = Settings(segmenter="grabcut", format="png", flags="rules")
    fgfast.convert("cub", out, root=cub(place), settings=settings, in_process=True)
    return out


def test_pairs_of_a_run_are_its_images_masks_and_classes(run: Path) -> None:
    with Twin(run) as twin:
        pairs = RunPairs.of(twin)
        masks = {outcome.key: twin.mask(outcome) for outcome in twin.entries() if outcome.rle}
        images = {key: twin.image(key).pixels for key in pairs.keys}
    assert pairs.keys and not pairs.left_out
    for n, key in enumerate(pairs.keys):
        # The class is the folder's, whatever numbers CUB's files count from.
        assert pairs.classes[pairs.labels[n]] == key.split("/")[-2]
        pixels, mask = pairs.pair(n)
        assert (pixels == images[key]).all() and (mask == masks[key]).all()
        x0, y0, x1, y1 = pairs.boxes[n]
        assert mask[y0:y1, x0:x1].sum() == mask.sum() > 0
        assert mask[y0:y1, x0].any() and mask[y0, x0:x1].any() and mask[y1 - 1, x0:x1].any()
    again = pickle.loads(pickle.dumps(pairs))
    assert (again.pair(0).pixels == pairs.pair(0).pixels).all() and again.digest == pairs.digest


def test_foreground_on_the_fly_is_what_convert_wrote(run: Path) -> None:
    with Twin(run) as twin:
        pairs = RunPairs.of(twin)
        shown = Shown(pairs)
        for n, key in enumerate(pairs.keys):
            written = twin.result(next(o for o in twin.entries() if o.key == key))
            assert written is not None
            pixels = np.asarray(Image.open(str(written)).convert("RGB"))
            found = shown.show("x_fg", n).pixels
            if written.below.lower().endswith(".png") or str(written).lower().endswith(".png"):
                assert (pixels == found).all()
            else:  # a name that ends in .jpg: lossy, the mask's inside within what JPEG does
                assert np.abs(pixels.astype(int) - found).mean() < 6


def test_an_image_that_changed_since_the_run_is_no_pair(tmp_path: Path) -> None:
    root = cub(tmp_path)
    fgfast.convert("cub", tmp_path / "out", root=root, settings=Settings(segmenter="box"), in_process=True)
    with Twin(tmp_path / "out") as twin:
        before = RunPairs.of(twin)
    place = root / "images" / before.keys[0].removeprefix("images/")
    place = place if place.exists() else next(root.rglob(Path(before.keys[0]).name))
    Image.fromarray(np.full((36, 48, 3), 7, np.uint8)).save(place)
    with Twin(tmp_path / "out") as twin:
        after = RunPairs.of(twin)
    assert after.left_out == {before.keys[0]: "its file has changed since the run"}
    assert before.keys[0] not in after.keys and after.digest != before.digest
    with pytest.raises(ImageBrokenError, match="changed since the run"):
        before.pair(0)


@pytest.mark.skipif(not (SHARED / "CUB_200_2011").is_dir(), reason="no photographs in ../shared")
def test_labels_of_cub_are_those_of_its_folders() -> None:
    found = next(SHARED.rglob("image_class_labels.txt"))
    numbers = dict(line.split() for line in found.read_text().splitlines())
    names = dict(line.split() for line in (found.parent / "images.txt").read_text().splitlines())
    for ident, name in names.items():
        assert int(numbers[ident]) == int(name.split(".")[0])


def test_a_tenth_of_each_class_validates() -> None:
    pairs = birds(160, 16)
    train, test = train_and_test(pairs, 0)
    assert len(train) == 160 and len(test) == 16
    left, part = holdout(pairs, train, 0)
    assert Counter(pairs.labels[part].tolist()) == dict.fromkeys(range(8), 2)
    assert sorted([*left, *part]) == train.tolist()
    assert not set(part) & set(test) and not set(part) & set(left)
    assert (holdout(pairs, train, 0)[1] == part).all() and not np.array_equal(holdout(pairs, train, 1)[1], part)


def test_without_a_test_split_a_share_must_be_named() -> None:
    pairs = birds(32, 8)
    object.__setattr__(pairs, "splits", ("",) * 40)
    with pytest.raises(UsageError, match="--test-share"):
        train_and_test(pairs, 0)
    train, test = train_and_test(pairs, 0, 0.2)
    assert (
        len(test) == 8 and len(train) == 32 and set(pairs.labels[test]) == set(range(8)) and not set(train) & set(test)
    )


def test_an_image_in_both_splits_is_refused() -> None:
    with pytest.raises(UsageError, match="'b'"):
        check_disjoint(["a", "b"], ["b", "c"])


def test_a_class_that_nothing_trains_is_refused() -> None:
    pairs = birds(16, 16)
    object.__setattr__(pairs, "labels", np.where(pairs.labels[:1] < 0, 0, pairs.labels))
    splits = tuple(
        "other" if label == 3 and split == "train" else split
        for label, split in zip(pairs.labels, pairs.splits, strict=True)
    )
    object.__setattr__(pairs, "splits", splits)
    with pytest.raises(UsageError, match="no training sample is of 'Red_Barred_Grey_Bird'"):
        train_and_test(pairs, 0)


def test_mixed_arms_lay_the_subject_on_another_background_of_its_split() -> None:
    pairs = birds(48, 24)
    shown = Shown(pairs, seed=5)
    for n in (0, 13, 50, 70):
        for arm, step in (("mixed-same", 0), ("mixed-next", 1), ("mixed-rand", None)):
            other = shown.partner(arm, n)  # type: ignore[arg-type]
            assert other is not None and other != n and pairs.splits[other] == pairs.splits[n]
            if step is not None:
                assert pairs.labels[other] == (pairs.labels[n] + step) % 8
            pixels, mask = shown.show(arm, n)  # type: ignore[arg-type]
            own, theirs = pairs.pair(n), pairs.pair(other)
            inside, outside = _eroded(own.mask, 3), _eroded(~own.mask, 3)
            assert (mask == own.mask).all()
            assert (pixels[inside] == own.pixels[inside]).all()
            x0, y0, x1, y1 = box_to_fill(theirs.mask)
            outside[y0:y1, x0:x1] = False
            assert (pixels[outside] == theirs.pixels[outside]).all()  # equal sizes: nothing is scaled
        assert (Shown(pairs, seed=5).show("mixed-rand", n).pixels == shown.show("mixed-rand", n).pixels).all()
    partners = [[Shown(pairs, seed).partner("mixed-rand", n) for n in range(48)] for seed in (5, 6)]
    assert partners[0] != partners[1]


def test_only_bg_shows_nothing_of_the_subject() -> None:
    pairs = birds(16, 8)
    shown = Shown(pairs)
    marked = [np.where(mask[..., None], np.uint8(255), image // 2) for image, mask in map(pairs.pair, range(16))]
    object.__setattr__(pairs, "_images", marked)
    there = [n for n in range(16) if not shown.without("only-bg", n)]
    assert len(there) > 8  # the others' boxes cover too much of their images
    for n in there:
        assert shown.show("only-bg", n).pixels.max() <= 127


def test_x_box_is_the_image_around_the_subject() -> None:
    pairs = birds(8, 8)
    pixels, mask = Shown(pairs).show("x-box", 3)
    assert mask[0].any() and mask[-1].any() and mask[:, 0].any() and mask[:, -1].any()
    assert mask.sum() == pairs.pair(3).mask.sum() and pixels.shape[:2] == mask.shape


def test_every_fill_keeps_the_subject() -> None:
    pairs = birds(8, 8)
    seen: set[bytes] = set()
    for name in FILLS:
        pair = pairs.pair(0)
        found = Fill(name, (128, 127, 126), seed=1).over(pair, pairs.keys[0])
        assert (found[pair.mask] == pair.pixels[pair.mask]).all()
        seen.add(found.tobytes())
        if name == "mean":
            assert (found[~pair.mask] == (128, 127, 126)).all()
        assert (Fill(name, (128, 127, 126), seed=1).over(pair, pairs.keys[0]) == found).all()
    assert len(seen) == len(FILLS)
    with pytest.raises(UnknownNameError):
        Fill("pink")


def test_samples_without_an_arm_say_why() -> None:
    pairs = birds(8, 8)  # one image of each class and split: none has another of its class
    shown = Shown(pairs)
    assert "no other image" in shown.without("mixed-same", 0)
    assert "no other image" in shown.without("mixed-rand", 0)  # so that both are of the same images
    with pytest.raises(UsageError, match="no other image"):
        shown.show("mixed-same", 0)
    with pytest.raises(UnknownNameError):
        shown.without("sideways", 0)  # type: ignore[arg-type]


def test_an_empty_mask_is_no_pair() -> None:
    from fgfast.studies.pairs import ArrayPairs

    image: UInt8 = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(UsageError, match="the mask of a is empty"):
        ArrayPairs.of(["a"], ["x"], [0], ["train"], [image], [np.zeros((4, 4), bool)])


def _eroded(mask: np.ndarray, by: int) -> np.ndarray:
    padded = np.pad(mask, by, mode="edge")
    parts = [
        padded[dy : dy + mask.shape[0], dx : dx + mask.shape[1]] for dy in range(2 * by + 1) for dx in range(2 * by + 1)
    ]
    return np.logical_and.reduce(parts)


# Batches.

torch = pytest.importorskip("torch", reason="batches of a study need torch")

from fgfast.studies import torchvision_shim  # noqa: E402

torchvision_shim.declare()
pytest.importorskip("torchvision", reason="batches of a study need torchvision")

from fgfast.studies.cell import Strategy  # noqa: E402
from fgfast.studies.loading import Loader, Samples, mean_colour  # noqa: E402
from fgfast.studies.models import Input  # noqa: E402
from fgfast.studies.recipes import RECIPES, Recipe, recipe  # noqa: E402
from fgfast.studies.transforms import Prepare, mixed_batch  # noqa: E402

CFG = Input((32, 32), "bilinear", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), 0.9)


def samples(count: int, train: bool, arm: str = "x", strategy: Strategy | None = None, seed: int = 0) -> Samples:
    pairs = birds(48, 8)
    prepare = Prepare(CFG, recipe("quick"), train)
    return Samples(Shown(pairs), arm, np.arange(count), prepare, strategy or Strategy(), seed)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [1, 7, 8, 9, 17])
@pytest.mark.parametrize("train", [False, True])
def test_every_sample_comes_once(count: int, train: bool) -> None:
    some = samples(count, train)
    loader = Loader(some, 8, train, threads=2)
    batches = list(loader.batches(3))
    keys = [key for batch in batches for key in batch.keys]
    assert sorted(keys) == sorted(some.shown.pairs.keys[n] for n in range(count))
    assert len(batches) == len(loader)
    assert all(len(batch.x) == len(batch.mask) == len(batch.y) == len(batch.keys) for batch in batches)
    if train and count > 1:
        assert min(len(batch.keys) for batch in batches) > 1
    labels = dict(zip(some.shown.pairs.keys, some.shown.pairs.labels.tolist(), strict=True))
    for batch in batches:
        assert batch.y.tolist() == [labels[key] for key in batch.keys]


def test_batches_do_not_depend_on_threads_nor_on_what_came_before() -> None:
    first = list(Loader(samples(20, True), 8, True, threads=1).batches(2))
    loader = Loader(samples(20, True), 8, True, threads=4)
    list(loader.batches(0))
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    second = list(loader.batches(2))
    assert (torch.random.get_rng_state() == before).all()
    for a, b in zip(first, second, strict=True):
        assert a.keys == b.keys and torch.equal(a.x, b.x) and torch.equal(a.mask, b.mask)
    other = [key for batch in loader.batches(3) for key in batch.keys]
    assert other != [key for batch in second for key in batch.keys]
    seeded = [key for batch in Loader(samples(20, True, seed=1), 8, True).batches(2) for key in batch.keys]
    assert seeded != [key for batch in second for key in batch.keys]


@pytest.mark.parametrize("one", RECIPES, ids=lambda one: one.name)
@pytest.mark.parametrize("train", [False, True])
def test_masks_move_with_images(one: Recipe, train: bool) -> None:
    """The image is its own mask, and after any step the two still agree."""
    rng = np.random.default_rng(0)
    for n in range(6):
        mask = np.zeros((60, 90), bool)
        top, left = rng.integers(5, 25), rng.integers(5, 40)
        mask[top : top + 30, left : left + 40] = True
        pair = Pair(np.repeat(mask[..., None].astype(np.uint8) * 255, 3, 2), mask)
        x, moved = Prepare(CFG, one, train)(pair, "key", str(n), seed=3)
        # The filter rounds the image to levels; a subject beside its mask would differ by 1 along its sides.
        assert (x[0] * 0.25 + 0.5 - moved[0]).abs().max() <= 1 / 255


def test_normalisation_is_the_models() -> None:
    pair = birds(8, 8).pair(0)
    own = Input((64, 64), "bilinear", (0.4, 0.5, 0.6), (0.1, 0.2, 0.3), 1.0)
    x, _ = Prepare(own, recipe("drawn"), train=False)(pair)
    pixels = x * torch.tensor(own.std).view(3, 1, 1) + torch.tensor(own.mean).view(3, 1, 1)
    assert torch.allclose(pixels, torch.from_numpy(pair.pixels).permute(2, 0, 1) / 255, atol=1e-6)
    assert mean_colour(own.mean) == (102, 128, 153)


def test_early_masking_comes_before_any_resize() -> None:
    early = Strategy("early")
    for repaint in (0, 255):
        pairs = birds(8, 8)
        images = [np.where(mask[..., None], image, np.uint8(repaint)) for image, mask in map(pairs.pair, range(16))]
        object.__setattr__(pairs, "_images", images)
        some = Samples(Shown(pairs), "x", np.arange(8), Prepare(CFG, recipe("quick"), True), early, 0)
        (batch,) = Loader(some, 8, False).batches()
        if not repaint:
            first = batch.x
    assert torch.equal(first, batch.x)  # nothing of the background has come in through a filter


def test_cutmix_cuts_masks_alike_and_mixup_unites_them() -> None:
    mask = (torch.rand(6, 1, 16, 16, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    x, y = mask.expand(-1, 3, -1, -1).clone(), torch.arange(6)
    for seed in range(20):
        mixed, moved, target = mixed_batch(x, mask, y, 6, 0.0, 1.0, seed)
        assert torch.equal(mixed[:, :1], moved)
        assert torch.allclose(target.sum(1), torch.ones(6))
        union = mixed_batch(x, mask, y, 6, 0.8, 0.0, seed)
        assert torch.equal((union[0][:, :1] > 0).float(), union[1])
    same = mixed_batch(x, mask, y, 6, 0.0, 0.0, 0)
    assert same[0] is x and same[2].argmax(1).tolist() == y.tolist()
