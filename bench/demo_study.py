"""The drawn experiment: what a background does, shown on birds whose truth is known, through the commands of fgfast.

    python bench/demo_study.py FOLDER [--save]     # `make demo-study`; minutes on two cores

Three parts, each checked: masking from random weights; crossval from weights that know shapes (Table 2's form); and
masking with GrabCut's masks instead of exact ones.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import NamedTuple

import click
import drawn_birds
import drawn_shapes
import numpy as np

from fgfast.bench import result
from fgfast.bench.result import Row
from fgfast.bench.result import save as save_result
from fgfast.cli import main as fgfast
from fgfast.ops.overlap import iou
from fgfast.pipeline.twin import Twin
from fgfast.studies.figures import accuracy
from fgfast.studies.predictions import read_predictions
from fgfast.terminal import say
from fgfast.writing import Target, remove_tree

SEEDS = 3
# The small ResNet: 8 cells a side of its last stages, which late masking needs.
_OPTIONS = {"channels": [16, 24, 36, 48], "stem_width": 8, "output_stride": 8}
_TIMM = ("channels=16,24,36,48", "stem_width=8", "output_stride=8")
_STRATEGIES = ("none", "early", "late", "late:second-last", "late:last:fg")
# The probability of the class's own texture for the pretrained start: most of what it learns is the texture.
_OWN = 0.95


class Check(NamedTuple):
    """A figure that must lie on one side of a bound."""

    name: str
    value: float
    wanted: str
    good: bool


class Trained(NamedTuple):
    """A training's accuracies in percent by test set, read from its tables."""

    strategy: str
    train: str
    seed: int
    right: dict[str, float]


def command(*words: str) -> None:
    """Run a command of fgfast, as a person would."""
    say("\n$ fgfast " + " ".join(words))
    try:
        fgfast(list(words), "fgfast")
    except SystemExit as end:
        if end.code:
            sys.exit(f"it ended with exit code {end.code}")


def trained(folder: Path) -> list[Trained]:
    """Return what a study trained."""
    found = []
    for facts in sorted(folder.glob("cells/*/cell.json")):
        cell = json.loads(facts.read_text())["cell"]
        how = cell["strategy"]
        name = ":".join(p for p in (how["where"], how["stage"], how["pooling"]) if p not in ("last", "native"))
        tables = facts.parent.glob("predictions-*.parquet")
        right = {t.stem.removeprefix("predictions-"): 100 * accuracy(read_predictions(t)) for t in tables}
        found.append(Trained(name, cell["train"], cell["seed"], right))
    return found


def _options(weights: Path | None = None, seeds: int = SEEDS) -> list[str]:
    words = ["--backbone", str(weights or "resnet10t"), "--recipe", "drawn", "--seeds", str(seeds)]
    for option in _TIMM:
        words += ["--timm", option]
    return [*words, *([] if weights else ["--no-pretrained"])]


def _strategies(names: tuple[str, ...]) -> list[str]:
    return [word for name in names for word in ("--strategy", name)]


def exact(folder: Path) -> tuple[Path, list[Check]]:
    """Mask in each way, from random weights and with exact masks."""
    drawn_birds.write(folder, 0)
    run, out = folder / "run", folder / "masking"
    masks = ["--segmenter", "annotations", "--mask-dir", str(folder / "masks")]
    command("convert", "--dataset", "folder", "--root", str(folder / "birds"), "--out", str(run), *masks)
    command("study", "masking", str(run), "--out", str(out), *_options(), *_strategies(_STRATEGIES))
    return run, [*_of_none(trained(out)), *_order(trained(out), "exact masks", _STRATEGIES, 20)]


def _of_none(found: list[Trained]) -> list[Check]:
    none, early = ([one.right for one in found if one.strategy == name] for name in ("none", "early"))
    falls = float(np.mean([one["x"] - one["x_fg"] for one in none]))
    gap, left = (float(np.mean([one["mixed-same"] - one["mixed-rand"] for one in some])) for some in (none, early))
    return [
        Check("none: X minus X_FG, points", falls, "at least 30", falls >= 30),
        Check("none: BG-gap, points", gap, "at least 40", gap >= 40),
        Check("early: BG-gap, points", left, "at most 5", left <= 5),
        *(
            Check(f"{one.strategy}: {test}, percent", one.right[test], "", True)
            for one in found
            if one.seed == 0
            for test in sorted(one.right)
        ),
    ]


def _order(found: list[Trained], masks: str, strategies: tuple[str, ...], least: float) -> list[Check]:
    """Check that early is above each late, and each late above none, on mixed-rand with every seed."""
    checks = []
    for seed in sorted({one.seed for one in found}):
        right = {one.strategy: one.right["mixed-rand"] for one in found if one.seed == seed}
        late = [right[name.replace(":last", "")] for name in strategies if name.startswith("late")]
        above, below = min(late) - right["none"], right["early"] - max(late)
        name = f"{masks}, seed {seed}, mixed-rand"
        checks.append(Check(f"{name}: least late minus none, points", above, f"at least {least:g}", above >= least))
        checks.append(Check(f"{name}: early minus best late, points", below, "above 0", below > 0))
    return checks


def pretrained(folder: Path) -> list[Check]:
    """Train on X and X_FG from weights that know shapes: Table 2's form."""
    drawn_birds.write(folder, 1, _OWN)
    run, out, weights = folder / "run", folder / "crossval", folder / "resnet10t.shapes.safetensors"
    shapes = 100 * drawn_shapes.pretrain(weights, _OPTIONS)
    masks = ["--segmenter", "annotations", "--mask-dir", str(folder / "masks")]
    command("convert", "--dataset", "folder", "--root", str(folder / "birds"), "--out", str(run), *masks)
    trains = ["--train-on", "x", "--train-on", "x_fg"]
    command("study", "crossval", str(run), "--out", str(out), *_options(weights), *trains)
    x, fg = ([one.right for one in trained(out) if one.train == train] for train in ("x", "x_fg"))
    pairs = [
        ("X -> X", x, "x"),
        ("X -> X_FG", x, "x_fg"),
        ("X -> mixed-rand", x, "mixed-rand"),
        ("X_FG -> X_FG", fg, "x_fg"),
        ("X_FG -> X", fg, "x"),
    ]
    means = {name: float(np.mean([one[test] for one in some])) for name, some, test in pairs}
    form = means["X -> X"] > 90 and means["X -> X"] - means["X -> X_FG"] >= 20 and means["X_FG -> X_FG"] > 90
    looks = folder / "gradcam"
    command("study", "gradcam", str(out), str(run), "--out", str(looks))
    return [
        *_inside(looks),
        Check("pretrained start: shapes of 16 classes, percent", shapes, "at least 20", shapes >= 20),
        *(Check(f"pretrained start: {name}, percent", value, "", True) for name, value in means.items()),
        Check("pretrained start: X falls on X_FG, points", means["X -> X"] - means["X -> X_FG"], "at least 20", form),
    ]


def _inside(folder: Path) -> list[Check]:
    """Check that the energy of Grad-CAM inside the subject rises from X to X_FG with every seed, on X."""
    from pyarrow import parquet

    found: dict[tuple[str, int], float] = {}
    area = 0.0
    for facts in sorted(folder.glob("cells/*/cell.json")):
        cell = json.loads(facts.read_text())["cell"]
        table = parquet.read_table(facts.parent / "looks.parquet").to_pylist()
        values = [row for row in table if row["arm"] == "x" and row["cam_evidence"]]
        found[(cell["train"], cell["seed"])] = 100 * float(np.mean([row["cam_inside"] for row in values]))
        area = 100 * float(np.mean([row["area"] for row in values]))
    checks = [Check("Grad-CAM: mask's area, percent", area, "", True)]
    for seed in sorted({seed for _, seed in found}):
        before, after = found[("x", seed)], found[("x_fg", seed)]
        checks.append(Check(f"Grad-CAM, seed {seed}: inside, trained on X, percent", before, "", True))
        checks.append(Check(f"Grad-CAM, seed {seed}: rises by, points", after - before, "above 0", after > before))
    return checks


def grabcut(folder: Path, exact_run: Path) -> list[Check]:
    """Mask with GrabCut's masks from annotated boxes; their agreement with the exact ones is stated."""
    run, out = folder / "run", folder / "masking"
    birds = exact_run.parent / "birds"
    command("convert", "--dataset", "folder", "--root", str(birds), "--out", str(run), "--segmenter", "grabcut")
    with Twin(run) as ours, Twin(exact_run) as truth:
        right = {one.key: truth.mask(one) for one in truth.entries(("done", "flagged"))}
        found = [iou(ours.mask(one), right[one.key]) for one in ours.entries(("done", "flagged"))]
    some = ("none", "early", "late:second-last")
    command("study", "masking", str(run), "--out", str(out), *_options(seeds=1), *_strategies(some))
    mean = float(np.mean(found))
    return [
        Check("GrabCut: mean IoU with the exact masks", mean, "at least 0.7", mean >= 0.7),
        Check("GrabCut: images of 1,024 with a mask", float(len(found)), "at least 1000", len(found) >= 1000),
        *_order(trained(out), "GrabCut", some, 0),
    ]


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--save", is_flag=True, help="Writes bench/results/demo_study-COMMIT.json, too.")
def main(folder: Path, save: bool) -> None:
    """Run the drawn experiment in FOLDER, which is emptied first."""
    remove_tree(Target(folder))
    began = time.perf_counter()
    run, checks = exact(folder / "exact")
    first = time.perf_counter() - began
    checks += pretrained(folder / "pretrained")
    checks += grabcut(folder / "grabcut", run)
    ours = [str(folder / name) for name in ("exact/masking", "pretrained/crossval", "pretrained/gradcam")]
    command("study", "report", *ours, "--out", str(folder / "report"))
    say("")
    for check in checks:
        mark = "" if not check.wanted else "good: " if check.good else "NOT GOOD ENOUGH: "
        say(f"{mark}{check.name}: {check.value:.3g}" + (f", wanted {check.wanted}" if check.wanted else ""))
    say(f"\n15 trainings in {first:.0f} s, everything in {time.perf_counter() - began:.0f} s. Pages:")
    for page in sorted([*folder.glob("*/*/study.html"), *folder.glob("report/report.html")]):
        say(f"  {page}")
    if save:
        rows = [Row(check.name, check.value, "", "", "") for check in checks]
        rows.append(Row("15 trainings", first, "s", "lower"))
        made = result.envelope("demo_study", rows, title="The drawn experiment", rounds=SEEDS)
        say(f"saved: {save_result(made)}")
    sys.exit(0 if all(check.good for check in checks) else 1)


if __name__ == "__main__":
    main()
