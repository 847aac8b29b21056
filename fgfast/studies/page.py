"""study.html: one page of a study, verdict first, that needs no network and runs no script.

All text of it is escaped: names of images and classes may be hostile.
"""

from __future__ import annotations

import importlib.resources
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape

from fgfast.errors import UsageError
from fgfast.studies import kept_tables, plots
from fgfast.studies.figures import LEAST_SEEDS
from fgfast.studies.findings import Finding, findings
from fgfast.studies.kept_tables import Kept
from fgfast.studies.results import Row, Study, gallery_keys
from fgfast.studies.tables import (
    LOST_CLASSES,
    Papers,
    Table,
    accuracies,
    clean,
    compared,
    findings_table,
    gaps,
    lost_classes,
)
from fgfast.studies.verdicts import model_name, verdict
from fgfast.writing import Target, remove, replacing

Thumbnails = Mapping[str, tuple[str, str]]
"""Key -> the image on X and on X_FG as data URIs."""

GALLERY = 24
"""Images in the gallery."""
THUMBNAIL_BYTES = 4_000_000
"""Of all data URIs together: what is beyond is left out, and the page says how many."""
# Of the tables that a study's page may have.
_NAMES = frozenset(("accuracies", "classes", "findings", "gaps", "groups", "groups-1", "groups-2", "strategies"))
_DATA_URI = re.compile(r"data:image/(?:png|webp|jpeg);base64,[A-Za-z0-9+/]+={0,2}")


def write_study(
    folder: Target,
    study: Study,
    *,
    papers: Papers | None = None,
    thumbnails: Thumbnails | None = None,
    found: Sequence[Finding] = (),
    more: Sequence[Table] = (),
) -> None:
    """Write study.html, and each of its tables as CSV and LaTeX, into a folder.

    Args:
        folder: where.
        study: its trainings.
        papers: the paper's figures, shown beside ours.
        thumbnails: of the images of `gallery_keys(leading(study))`.
        found: findings over data sets, shown where there are any.
        more: further tables, for example `fgfast.studies.tables.grouped`.

    Raises:
        UsageError: test sets that are compared are of other images, or a thumbnail is no data URI of an image.
        OutputFailedError: the disk is full, read-only or failing.
    """
    tables = [*made(study, papers, found), *(table for table in more if table.rows)]
    _write(folder, page(study, tables, thumbnails or {}), "study.html", tables)
    for name in _NAMES - {table.name for table in tables}:  # of an earlier page
        remove(folder / f"{name}.csv")
        remove(folder / f"{name}.tex")


def write_tables(
    folder: Target, title: str, said: Sequence[tuple[str, str]], shown: Sequence[tuple[Table, str]], more: str = ""
) -> None:
    """Write study.html of a study that is not one of accuracies, and its tables as CSV and LaTeX.

    Args:
        folder: where.
        title: of the page.
        said: the verdict: sentences, and how sure each is.
        shown: tables with what stands above each: our own HTML.
        more: our own HTML below all.

    Raises:
        OutputFailedError: the disk is full, read-only or failing.
    """
    sentences = "".join(f"<p>{_text(a)} <small>{_text(b)}</small></p>" for a, b in said)
    parts = [_section("verdict", "", sentences), *(_shown(table, above) for table, above in shown if table.rows), more]
    tables = [table for table, _ in shown if table.rows]
    _write(folder, _filled(title, parts), "study.html", tables)
    with replacing(folder / kept_tables.FILE) as file:
        file.write(kept_tables.as_json(title, said, tables))


def section(title: str, content: str) -> str:
    """Return a section of a page; the content is our own HTML, in which every text is escaped."""
    return _section("table", title, content)


def write_comparison(folder: Target, first: Study, second: Study) -> None:
    """Write compared.html, .csv and .tex: a row for each training set, model and test set that both studies have.

    Raises:
        UsageError: the studies have nothing in common, or test sets are of other images.
        OutputFailedError: the disk is full, read-only or failing.
    """
    table = compared(first, second)
    if not table.rows:
        raise UsageError("the studies have no model, training set and seed in common, so that nothing can be compared")
    notices = list(dict.fromkeys(map(_notice, (first, second))))
    title = f"{first.dataset} and {second.dataset}"
    _write(folder, _filled(title, [*notices, _shown(table)]), "compared.html", [table])


def write_findings(folder: Target, studies: Sequence[Study]) -> None:
    """Write findings.html, .csv and .tex: the paper's findings over data sets and backbones.

    Raises:
        UsageError: test sets that are compared are of other images.
        OutputFailedError: the disk is full, read-only or failing.
    """
    found = findings(studies)
    table = findings_table(found)
    notices = list(dict.fromkeys(map(_notice, studies)))
    said = _section("verdict", "", _said(found) or "<p>Nothing was trained on X.</p>")
    _write(folder, _filled("The paper's findings", [*notices, said, _shown(table)]), "findings.html", [table])


def write_report(
    folder: Target, shown: Sequence[tuple[Study, Sequence[Table], Thumbnails]], kept: Sequence[Kept] = ()
) -> None:
    """Write report.html: the paper's findings, where studies were trained on X and X_FG, then each study.

    Args:
        folder: where; the tables are written beside it, named after their studies.
        shown: studies with their tables and thumbnails.
        kept: studies that are not of accuracies; their drawings are on pages of their own.

    Raises:
        UsageError: test sets that are compared are of other images.
        OutputFailedError: the disk is full, read-only or failing.
    """
    found = findings([study for study, _, _ in shown if study.name == "crossval"])
    parts, tables = [], list[Table]()
    if found:
        tables.append(findings_table(found))
        parts += [_section("verdict", "", _said(found)), _shown(tables[-1])]
    for number, (study, its, thumbnails) in enumerate(shown, 1):
        named = [replace(table, name=f"{number}-{study.name}-{table.name}") for table in its]
        tables += named
        parts += [f"<h1>{_text(f'{study.name}: {study.dataset}')}</h1>", *_parts(study, named, thumbnails)]
    for number, one in enumerate(kept, len(shown) + 1):
        named = [replace(table, name=f"{number}-{table.name}") for table in one.tables]
        tables += named
        sentences = "".join(f"<p>{_text(a)} <small>{_text(b)}</small></p>" for a, b in one.said)
        parts += [f"<h1>{_text(one.title)}</h1>", _section("verdict", "", sentences), *map(_shown, named)]
    title = " and ".join(dict.fromkeys([*(study.dataset for study, _, _ in shown), *(one.title for one in kept)]))
    _write(folder, _filled(f"Report: {title}", parts), "report.html", tables)


def _said(found: Sequence[Finding]) -> str:
    """Count the judgements of each claim."""
    sentences = ""
    for claim in dict.fromkeys(one.claim for one in found):
        counts = Counter(one.judgement for one in found if one.claim == claim)
        sentences += f"<p>{_text(claim)}: {', '.join(f'{kind} {n}' for kind, n in sorted(counts.items()))}.</p>"
    return sentences


def _write(folder: Target, page: bytes, name: str, tables: Sequence[Table]) -> None:
    files = {name: page}
    for table in tables:
        files |= {f"{table.name}.csv": table.csv(), f"{table.name}.tex": table.latex().encode()}
    for name, content in files.items():
        with replacing(folder / name) as file:
            file.write(content)


def made(study: Study, papers: Papers | None = None, found: Sequence[Finding] = ()) -> list[Table]:
    """Return the tables of a study's page."""
    tables = [gaps(study), accuracies(study, papers), *([findings_table(found)] if found else [])]
    row = leading(study)
    if row is not None and row.minus("x", "x_fg"):
        tables.append(lost_classes(row, study.classes))
    return [table for table in tables if table.rows]


def leading(study: Study) -> Row | None:
    """Return the row that the table of classes and the gallery show: the first one trained on X."""
    return next((row for row in study.rows if row.cell.train == "x"), None)


def page(study: Study, tables: Sequence[Table], thumbnails: Thumbnails) -> bytes:
    """Return the page."""
    return _filled(f"{study.name}: {study.dataset}", _parts(study, tables, thumbnails))


def _parts(study: Study, tables: Sequence[Table], thumbnails: Thumbnails) -> list[str]:
    """Return the sections of a study, the verdict first."""
    sentences = "".join(f"<p>{_text(a)} <small>{_text(b)}</small></p>" for a, b in verdict(study))
    parts = [_notice(study), _section("verdict", "", sentences)]
    drawn = {"gaps": plots.gap_bars(study), "accuracies": plots.accuracy_bars(study) if study.arms else ""}
    parts += [_shown(table, drawn.get(table.name.rpartition("-")[2], "")) for table in tables]
    return [part for part in (*parts, _gallery(study, thumbnails), _not_run(study)) if part]


def _filled(title: str, parts: Sequence[str]) -> bytes:
    """Fill the template."""
    template = importlib.resources.files("fgfast.studies").joinpath("page.html").read_text(encoding="utf-8")
    texts = {"title": _text(title), "body": "\n".join(filter(None, parts))}
    return re.sub(r"\{\{(\w+)\}\}", lambda match: texts[match[1]], template).encode()


def _shown(table: Table, plot: str = "") -> str:
    """Return a table below its plot, with the names of its files."""
    most = LOST_CLASSES if table.name.endswith("classes") else None
    more = f" The first {most} of {len(table.rows)}." if most and len(table.rows) > most else ""
    note = f"{table.note}{more} Files: {table.name}.csv, {table.name}.tex."
    above = f"<div class=wide>{plot}</div>" if plot else ""
    return _section("table", table.title, f'{above}{table.html(most)}<p class="soft">{_text(note)}</p>')


def _notice(study: Study) -> str:
    return f'<p class="notice">{_text(study.notice)}</p>' if study.notice else ""


def _text(text: str) -> str:
    return escape(clean(text))


def _section(kind: str, title: str, content: str) -> str:
    head = f"<h2>{_text(title)}</h2>" if title else ""
    return f'<section class="{kind}">{head}{content}</section>'


def _gallery(study: Study, thumbnails: Thumbnails) -> str:
    row = leading(study)
    keys = gallery_keys(row, GALLERY) if row is not None else ()
    if row is None or not keys:
        return ""
    some = next(iter(row.of("x").values()))
    label = dict(zip(some.keys, some.labels.tolist(), strict=True))
    cards, left = [], THUMBNAIL_BYTES
    for key in keys:
        pair = thumbnails.get(key)
        if pair is None or sum(map(len, pair)) > left:
            continue
        if not all(_DATA_URI.fullmatch(uri) for uri in pair):
            raise UsageError(f"a thumbnail must be a data URI of a PNG, WebP or JPEG in base64; that of {key!a} is not")
        left -= sum(map(len, pair))
        images = "".join(f'<img src="{uri}" alt="">' for uri in pair)
        cards.append(f"<li><div>{images}</div><p>{_text(key)}</p><p>{_text(study.classes[label[key]])}</p></li>")
    note = f"{row.name}: surest mistakes in most of its trainings, in turn from each class. {len(cards)} shown"
    note += f"; {len(keys) - len(cards)} have no thumbnail." if len(cards) < len(keys) else "."
    body = f'<p class="soft">{_text(note)}</p><ul class="cards">{"".join(cards)}</ul>'
    return _section("gallery", "Right on X, wrong on X_FG", body)


def _not_run(study: Study) -> str:
    return missing(not_run(study))


def not_run(study: Study) -> list[tuple[str, str]]:
    """Return what of a study was not run, and why."""
    few = [row for row in study.rows if len(row.trained) < LEAST_SEEDS]
    items = [*study.not_run]
    items += [
        (model_name(row), f"{len(row.trained)} of the {LEAST_SEEDS} trainings that an interval needs") for row in few
    ]
    for row in study.rows:
        lacking = [arm for arm in study.arms if len(row.of(arm)) < len(row.trained)]
        items += [(f"{model_name(row)}, tested on {arm}", "not tested in every training") for arm in lacking]
    return items


def missing(items: Sequence[tuple[str, str]]) -> str:
    """Return the section of what was not run, empty where there is nothing."""
    if not items:
        return ""
    return _section("missing", "Not run", Table("", "", ("What", "Why"), tuple(items)).html())
