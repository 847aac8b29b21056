"""A result as one page for a browser: no script, nothing from elsewhere. page.html is the frame; this fills it."""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

from fgfast.bench import plots
from fgfast.bench.compare import Change, Comparison
from fgfast.bench.result import Row, rows_of
from fgfast.bench.text import figure, many, some


def write(path: Path, result: Mapping[str, Any], comparison: Comparison | None = None) -> None:
    """Write the page of a result, and of its comparison with an earlier one."""
    path.write_text(page(result, comparison), encoding="utf-8")


def page(result: Mapping[str, Any], comparison: Comparison | None = None) -> str:
    """The page as HTML."""
    frame = importlib.resources.files("fgfast.bench").joinpath("page.html").read_text(encoding="utf-8")
    machine = result["machine"]
    lead = [f"<b>{escape(str(machine['processor']))}</b>", many(machine["cores"], "core")]
    lead += [f"<b>{escape(gpu)}</b>" for gpu in machine.get("gpus", [])]
    lead += [f"commit <b>{escape(result['commit'])}</b>", many(result["rounds"], "round")]
    series = result.get("plots") or {}
    body = [_verdict(result)]
    body += [_compared(comparison)] if comparison else []
    body += _timelines(series) + _queues(series) + _roofline(series) + _bars(series)
    body += [f'<div class="tables">{"".join(_groups(rows_of(result)))}</div>', _facts(result)]
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    parts = {
        "title": escape(str(result["title"])),
        "lead": "".join(f"<span>{part}</span>" for part in lead),
        "body": "\n".join(body),
        "foot": f"Written {now} by fgfast {escape(result['versions']['fgfast'])}; loads nothing from anywhere.",
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], frame)


def _verdict(result: Mapping[str, Any]) -> str:
    """What the result says first: the verdict's sentences, the figures that matter, the notes."""
    first, *more = result.get("verdict") or [""]
    told = f'<p class="first">{escape(first)}</p>' if first else ""
    told += "".join(f'<p class="more">{escape(sentence)}</p>' for sentence in more)
    keyed = {row.key: row for row in rows_of(result)}
    tiles = [
        f"<div><dt>{escape(_short(key))}</dt>"
        f"<dd>{figure(keyed[key].value)} <small>{escape(keyed[key].unit)}</small></dd></div>"
        for key in result.get("headline", [])
    ]
    told += f'<dl class="tiles">{"".join(tiles)}</dl>' if tiles else ""
    notes = "".join(f"<li>{escape(note)}</li>" for note in result["notes"])
    told += f'<ul class="notes">{notes}</ul>' if notes else ""
    return f'<section class="box verdict">{told}</section>'


def _short(key: str) -> str:
    """A row's key without the groups that go without saying."""
    return key.replace("end to end: ", "").replace("arithmetic floor: ", "")


def _bars(series: Mapping[str, Any]) -> list[str]:
    """One figure of many things beside one another."""
    found = []
    for bars in series.get("bars", ()):
        cells = [[name, figure(value)] for name, value in bars["values"]]
        body = f'<div class="wide">{plots.bars(bars)}</div>' + _table((bars["of"], bars["unit"]), cells)
        found.append(_plot(bars["title"], bars["note"], body))
    return found


def _timelines(series: Mapping[str, Any]) -> list[str]:
    """Who did what when, and what the stages cost."""
    if not series.get("timelines"):
        return []
    body = _legend((cost["stage"], plots.colour_of(cost["stage"])) for cost in series["stages"])
    for timeline in series["timelines"]:
        body += f'<h3>{escape(timeline["title"])}</h3><div class="wide">{plots.timeline(timeline)}</div>'
    head = ("stage", "ms per image", "s in all", "images", "pieces of work", "images at once")
    cells = [
        [c["stage"], *map(figure, (c["ms"], c["seconds"], c["items"], c["pieces"], c["items"] / c["pieces"]))]
        for c in series["stages"]
    ]
    note = "A lane a thread, a bar a piece of work; what is closer together than a pixel is one bar."
    return [_plot("Stages over time", note, body + _table(head, cells))]


def _queues(series: Mapping[str, Any]) -> list[str]:
    queues = series.get("queues") or {}
    if not queues.get("waiting"):
        return []
    cells = [
        [c["stage"], figure(c["mean_waiting"]), f"{c['most_waiting']:,}"]
        for c in series["stages"]
        if c["stage"] in queues["waiting"]
    ]
    head = ("stage", "waiting on average", "at most")
    body = f'<div class="wide">{plots.queues(queues)}</div>' + _table(head, cells)
    note = "Images that waited when a piece of work began. Each stage has its own scale; stages with none are left out."
    return [_plot("Queues", note, body)]


def _roofline(series: Mapping[str, Any]) -> list[str]:
    found = series.get("roofline")
    if not found:
        return []
    peak = max(roof["flops"] for roof in found["roofs"])
    cells = [
        [p["name"], kind, f"{p['intensity']:,.0f}", figure(p["flops"] / 1e9), f"{p['flops'] / peak:.0%}"]
        for kind, points in (("model's forward", found["models"]), ("product", found["products"]))
        for p in points
    ]
    head = ("what", "kind", "operations a byte", "1e9 operations/s", "of the fastest product")
    note = (
        "Horizontal: the fastest of the models' matrix products, measured here; slope: a copy in memory. Grey: each "
        "product. A model's bytes are its weights once a batch and what goes in and out; what leaves the caches in "
        "between comes on top, so its point may lie further to the left."
    )
    body = f'<div class="wide">{plots.roofline(found)}</div>' + _table(head, cells)
    return [_plot("Arithmetic against the roof", note, body)]


def _groups(rows: Sequence[Row]) -> Iterable[str]:
    """A table a group; bars compare the rows of one unit."""
    for group, members in groupby(rows, key=lambda row: row.group):
        own = list(members)
        largest: dict[str, float] = {}
        for row in own:
            largest[row.unit] = max(largest.get(row.unit, 0.0), row.value)
        lines = "".join(_line(row, largest[row.unit], [r.unit for r in own].count(row.unit) > 1) for row in own)
        title = f"<h2>{escape(group[:1].upper() + group[1:])}</h2>" if group else ""
        yield f'<section class="box">{title}<div class="scroll"><table><tbody>{lines}</tbody></table></div></section>'


def _line(row: Row, largest: float, several: bool) -> str:
    """A row: name, bar, figure, range of the rounds."""
    part = 100 * max(0.0, row.value) / largest if largest > 0 else 0.0
    bar = f'<i style="width:{part:.1f}%"></i>' if several else ""
    span = f"{figure(min(row.rounds))} to {figure(max(row.rounds))}" if row.spread is not None else ""
    return (
        f'<tr><td>{escape(row.name)}</td><td class="bar">{bar}</td><td class="number">{figure(row.value)} '
        f'<span class="unit">{escape(row.unit)}</span></td><td class="number soft small">{span}</td></tr>'
    )


def _compared(found: Comparison) -> str:
    """Old, new, ratio of each row; those beyond noise first."""
    worse = len(found.worse)
    told = f"{many(worse, 'row')} got worse than noise." if worse else "Nothing got worse than noise."
    body = "".join(f'<p class="soft small">{escape(sentence)}</p>' for sentence in found.differences)
    beyond = sorted((c for c in found.changes if c.verdict), key=lambda c: c.verdict != "worse")
    within = [c for c in found.changes if not c.verdict]
    body += _changes(beyond) if beyond else ""
    if within:
        body += f"<details><summary>{many(len(within), 'row')} within noise</summary>{_changes(within)}</details>"
    for title, keys in (("Only in the old one", found.only_old), ("Only in the new one", found.only_new)):
        body += f'<p class="soft small">{title}: {escape(some(keys))}</p>' if keys else ""
    return _plot(f"Compared with {found.old}", told, body)


def _changes(changes: Sequence[Change]) -> str:
    lines = ""
    for change in changes:
        chip = f'<span class="chip {change.verdict}">{change.verdict}</span>' if change.verdict else ""
        numbers = (figure(change.old), f"{figure(change.row.value)} {change.row.unit}", figure(change.ratio))
        lines += f"<tr><td>{escape(change.row.key)}</td>"
        lines += "".join(f'<td class="number">{escape(number)}</td>' for number in numbers)
        lines += f'<td class="number soft">{change.noise:.0%}</td><td>{chip}</td></tr>'
    top = "".join(f'<th class="number">{name}</th>' for name in ("old", "new", "new / old", "noise"))
    head = f"<thead><tr><th>row</th>{top}<th></th></tr></thead>"
    return f'<div class="scroll"><table>{head}<tbody>{lines}</tbody></table></div>'


def _facts(result: Mapping[str, Any]) -> str:
    """Where it was measured, with what."""
    machine = {name: ", ".join(v) if isinstance(v, list) else v for name, v in result["machine"].items()}
    load = {"load, 1, 5 and 15 minutes": ", ".join(map(str, result["load"]))} if "load" in result else {}
    facts = {"commit": result["commit"], **machine, **load, **result["versions"]}
    lines = "".join(f"<tr><th>{escape(str(k))}</th><td>{escape(str(v))}</td></tr>" for k, v in facts.items())
    table = f'<table class="facts"><tbody>{lines}</tbody></table>'
    return f'<section class="box"><h2>Machine and versions</h2>{table}</section>'


def _plot(title: str, note: str, body: str) -> str:
    header = f'<header><h2>{escape(title)}</h2><p class="soft small">{escape(note)}</p></header>'
    return f'<section class="box plot">{header}{body}</section>'


def _legend(names: Iterable[tuple[str, str]]) -> str:
    items = "".join(f'<li class="{kind}">{escape(name)}</li>' for name, kind in names)
    return f'<ul class="legend">{items}</ul>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is words and whose others are numbers."""
    top = "".join(f'<th class="{"number" if n else ""}">{escape(name)}</th>' for n, name in enumerate(head))
    lines = "".join(
        "<tr>" + "".join(f'<td class="{"number" if n else ""}">{escape(c)}</td>' for n, c in enumerate(row)) + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>'
