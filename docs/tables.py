"""Writes the tables of the docs that come from code or from bench/results: settings, methods, speed, floors.

`python docs/tables.py` rewrites the pages; a test holds them.

A table stands between `<!-- table: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import Field, fields
from functools import partial
from pathlib import Path
from typing import Any

import click

from fgfast import methods
from fgfast.background import Background
from fgfast.bench import floors
from fgfast.cli.study import study
from fgfast.config import Settings
from fgfast.expand.table import KINDS, kind, resolve
from fgfast.methods import Kind
from fgfast.setting import Setting
from fgfast.studies.recipes import RECIPES

DOCS = Path(__file__).resolve().parent
FOUND = (
    "detector",
    "segmenter",
    "mask_dir",
    "masks_from",
    "otherwise",
    "follow_links",
    "vocabulary",
    "model_weights",
    "precision",
    "devices",
    "workers_per_device",
    "placement",
    "batch",
)
FOUND += ("model_threads", "decoder", "backend")


def _settings(names: tuple[str, ...], others: bool = False) -> Iterator[str]:
    """Rows of these settings, or of all others."""
    yield "| option | what it does | values | default |"
    yield "| --- | --- | --- | --- |"
    for f in fields(Settings):
        if (f.name in names) != others:
            setting: Setting = f.metadata["setting"]
            values = ", ".join(f"`{value}`" for value in setting.choices()) if setting.choices else _values(f, setting)
            yield f"| `--{f.name.replace('_', '-')}` | {setting.help} | {values} | {_default(f, setting)} |"


def _values(f: Field[Any], setting: Setting) -> str:
    if setting.least is None:
        return ""
    return f"{setting.least:g} and more" if setting.most is None else f"{setting.least:g} to {setting.most:g}"


def _default(f: Field[Any], setting: Setting) -> str:
    if f.default is None:
        return setting.unset
    if f.default is False:
        return "off"
    return f"`{f.default.describe() if isinstance(f.default, Background) else f.default}`"


def _methods(kind: Kind) -> Iterator[str]:
    yield f"| `--{kind}` | what it is | weights | licence | source |"
    yield "| --- | --- | --- | --- | --- |"
    for method in methods.methods(kind):
        names = ", ".join(f"`{name}`" for name in (method.name, *method.aliases))
        weights = f"`fgfast models pull {method.weights}`" if method.weights else "none"
        yield f"| {names} | {method.summary} | {weights} | {method.licence} | {method.source} |"


def _results(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((DOCS.parent / "bench/results" / f"{name}.json").read_text(encoding="utf-8"))
    return content


def _speed() -> Iterator[str]:
    """Rows of setups and their speed, from files of bench/results; all of them from the same kind of machine."""

    def value(file: str, row: str) -> float:
        return float(next(r["value"] for r in _results(file)["rows"] if r["name"] == row))

    null, models, vit_l, masks = "pipeline_null-0450c37", "pipeline-0450c37", "sam_vit_l-dc8295d", "quality-2d80f78"
    grabcut = _results(masks)["sets"]["dali_coco"]["fgfast"]["median_s"]
    rows = (
        ("no model: the boxes serve as masks", value(null, "rate"), null),
        ("GrabCut alone, one thread, photographs", 1 / grabcut, masks),
        ("Detic and SAM ViT-B, bf16", value(models, "rate"), models),
        ("SAM ViT-L alone, bf16", 1 / value(vit_l, "fgfast bf16"), vit_l),
    )
    machines = {(_results(name)["machine"]["processor"], _results(name)["machine"]["cores"]) for *_, name in rows}
    ((processor, cores),) = machines
    machine = f"{cores} cores of {processor.replace('(R)', '')}"
    yield f"| setup, on {machine} | images per second | 10,000 images | measured in |"
    yield "| --- | --- | --- | --- |"
    for setup, rate, name in rows:
        yield f"| {setup} | {rate:.3g} | {_time(1e4 / rate)} | `bench/results/{name}.json` |"


def _review_keys() -> Iterator[str]:
    """Rows of the keys of the page of `fgfast review`, from the module that holds them."""
    text = (DOCS.parent / "fgfast/review/page/keys.js").read_text(encoding="utf-8")
    table = text.split("export const ACTIONS = {")[1].split("\n};")[0]
    yield "| key | what it does |"
    yield "| --- | --- |"
    for what, key in re.findall(r'\w+: \["([^"]+)", "([^"]+)"\]', table):
        shown = "Space" if key == " " else re.sub(r"\b[a-z]$", lambda letter: letter[0].upper(), key)
        yield f"| `{shown}` | {what} |"
    yield "| `1` to `9` | Take this mask, or this box of the detector |"
    yield "| `Shift+1` to `Shift+4` | Give this cause |"
    yield "| arrow keys | Move through the gallery; with a tool, move the crosshair (`Shift`: ten pixels) |"


def _background_edges() -> Iterator[str]:
    """Rows of bench/background_edges.py: what is left of the old background, and the error, by alpha and way."""
    found = {f"{row['group']}: {row['name']}": row["value"] for row in _results("background_edges-ce1712d")["rows"]}
    blurs = list(dict.fromkeys(key.split(": ")[0] for key in found))
    pairs = dict.fromkeys(tuple(key.split(": ")[1:3]) for key in found)
    yield "| alpha | colours of the edge | " + " | ".join(blurs) + " |"
    yield "| --- | --- |" + " --- |" * len(blurs)
    for alpha, way in pairs:
        cells = []
        for blur in blurs:
            left, most, error = (
                found[f"{blur}: {alpha}: {way}: {what}"] for what in ("left, mean", "left, largest", "error, mean")
            )
            cells.append(f"{left:.1f} ({most:.0f}), {error:.1f}")
        yield f"| {alpha} | {way} | {' | '.join(cells)} |"


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.0f} h"


def _kinds() -> Iterator[str]:
    yield "| kind | what it makes |"
    yield "| --- | --- |"
    for one in KINDS:
        yield f"| [`{one.name}`](expand/{one.name}.md) | {one.summary} |"


def _options(name: str) -> Iterator[str]:
    """Rows of the options of a kind of expansion."""
    yield "| option | what it does | values | default |"
    yield "| --- | --- | --- | --- |"
    for f in fields(resolve(kind(name).options)):
        setting: Setting = f.metadata["setting"]
        values = ", ".join(f"`{value}`" for value in setting.choices()) if setting.choices else _values(f, setting)
        default = "none" if f.default == "" else _default(f, setting)
        yield f"| `--{f.name.rstrip('_').replace('_', '-')}` | {setting.help} | {values} | {default} |"


def _study_options(name: str) -> Iterator[str]:
    """Rows of the options of a study, from its command."""
    yield "| option | meaning |"
    yield "| --- | --- |"
    for param in study.commands[name].params:
        if isinstance(param, click.Option) and "--verbose" not in param.opts:
            default = f"; default {param.show_default}" if isinstance(param.show_default, str) else ""
            if param.show_default is True and param.default not in (None, False):
                default = f"; default {', '.join(param.default) if isinstance(param.default, tuple) else param.default}"
            said = (param.help or "").rstrip(".").replace("|", "\\|")
            yield f"| `{param.opts[0]}` | {said[:1].lower()}{said[1:]}{default} |"


def _recipes() -> Iterator[str]:
    yield "| recipe | epochs | batch | optimiser, learning rate | source |"
    yield "| --- | --- | --- | --- | --- |"
    for one in RECIPES:
        yield f"| `{one.name}` | {one.epochs} | {one.batch} | {one.optimizer}, {one.lr:g} | {one.source} |"


TABLES: dict[str, Callable[[], Iterator[str]]] = {
    "settings that find the subject": lambda: _settings(FOUND),
    "settings that write": lambda: _settings(FOUND, others=True),
    "detectors": lambda: _methods("detector"),
    "segmenters": lambda: _methods("segmenter"),
    "speed": _speed,
    "floors per GPU": floors.table,
    "review keys": _review_keys,
    "kinds of expansion": _kinds,
    "background edges": _background_edges,
    "recipes": _recipes,
    **{f"options of study {name}": partial(_study_options, name) for name in study.commands},
    **{f"options of {one.name}": partial(_options, one.name) for one in KINDS},
}


def with_tables(text: str) -> str:
    """A page with its tables as they are today."""

    def table(match: re.Match[str]) -> str:
        rows = "\n".join(TABLES[match[1]]())
        return f"<!-- table: {match[1]} -->\n\n{rows}\n\n<!-- end -->"

    return re.sub(r"<!-- table: (.+?) -->.*?<!-- end -->", table, text, flags=re.S)


def main() -> None:
    """Rewrite the pages."""
    for page in (DOCS.parent / "README.md", *sorted(DOCS.rglob("*.md"))):
        text = page.read_text(encoding="utf-8")
        page.write_text(with_tables(text), encoding="utf-8")


if __name__ == "__main__":
    main()
