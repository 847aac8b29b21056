"""The tables of a study, each as CSV, as LaTeX (booktabs) and as rows of HTML."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from fgfast.studies.figures import Difference, Estimate, groups, over_seeds, per_class
from fgfast.studies.findings import Finding, sentence
from fgfast.studies.results import Row, Study, both

Value = str | float | Estimate | None
Papers = Mapping[tuple[str, str, str], float]
"""(backbone, training set, test set) -> accuracy in the paper, in percent."""

LOST_CLASSES = 30
"""Rows of the table of classes on the page; its CSV has all."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes:
        name: of its files.
        title: for people.
        heads: of the columns.
        rows: of as many values; a share or an estimate of one is shown in percent or points, None as a dash.
        note: below it.
        signed: columns of differences, shown with their sign.
    """

    name: str
    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    note: str = ""
    signed: frozenset[int] = frozenset()

    def csv(self) -> bytes:
        """Return CSV, UTF-8: shares 0..1 in full; an estimate is value, low, high, count."""
        wide = {n for row in self.rows for n, value in enumerate(row) if isinstance(value, Estimate)}
        text = io.StringIO()
        add = csv.writer(text, lineterminator="\n").writerow
        add([name for n, head in enumerate(self.heads) for name in _heads(head, n in wide)])
        for row in self.rows:
            add([cell for n, value in enumerate(row) for cell in _cells(value, n in wide)])
        return text.getvalue().encode("utf-8", "backslashreplace")

    def latex(self) -> str:
        """Return a tabular for the package booktabs; intervals stand in brackets."""
        form = "".join("l" if self._textual(n) else "r" for n in range(len(self.heads)))
        lines = [rf"% {_comment(self.title)}", rf"\begin{{tabular}}{{{form}}}", r"\toprule"]
        lines += [" & ".join(map(_tex, self.heads)) + r" \\", r"\midrule"]
        lines += [" & ".join(self._in_tex(n, v) for n, v in enumerate(row)) + r" \\" for row in self.rows]
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])

    def _in_tex(self, n: int, value: Value) -> str:
        if isinstance(value, str):
            return _tex(value)
        main, interval = shown(value, n in self.signed)
        main = main.replace("−", "$-$").replace("–", "--")
        return main + (rf" {{\scriptsize [{interval.replace('−', '$-$')}]}}" if interval else "")

    def html(self, most: int | None = None) -> str:
        """Return the table, its first `most` rows; every text is escaped."""
        head = "".join(f"<th scope=col{self._class(n)}>{escape(clean(text))}</th>" for n, text in enumerate(self.heads))
        body = "".join(f"<tr>{self._row(row)}</tr>" for row in self.rows[:most])
        return f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"

    def _row(self, row: tuple[Value, ...]) -> str:
        cells = []
        for n, value in enumerate(row):
            main, interval = (value, "") if isinstance(value, str) else shown(value, n in self.signed)
            more = f" <small>{escape(interval)}</small>" if interval else ""
            cells.append(f"<td{self._class(n)}>{escape(clean(main))}{more}</td>")
        return "".join(cells)

    def _class(self, n: int) -> str:
        return "" if self._textual(n) else " class=number"

    def _textual(self, n: int) -> bool:
        return any(isinstance(row[n], str) for row in self.rows)


def clean(text: str) -> str:
    """Return text that UTF-8 can hold: bytes of names that are no UTF-8 become escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def shown(value: float | Estimate | None, signed: bool = False) -> tuple[str, str]:
    """Return a share in percent, and its interval or nothing."""
    if value is None or (not isinstance(value, Estimate) and np.isnan(value)):
        return "–", ""
    if not isinstance(value, Estimate):
        return _percent(value, signed), ""
    if value.low is None or value.high is None:
        return _percent(value.value, signed), ""
    return _percent(value.value, signed), f"{_percent(value.low, signed)} to {_percent(value.high, signed)}"


def _percent(value: float, signed: bool) -> str:
    text = f"{100 * value:{'+' if signed else ''}.1f}"
    return "0.0" if text.strip("+-") == "0.0" else text.replace("-", "−")


def _heads(head: str, wide: bool) -> list[str]:
    return [head, f"{head}, low", f"{head}, high", f"{head}, count"] if wide else [head]


def _cells(value: Value, wide: bool) -> list[str | float | int | None]:
    if isinstance(value, Estimate):
        return [value.value, value.low, value.high, value.count]
    return [clean(value) if isinstance(value, str) else value, *([None] * 3 if wide else [])]


_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\n": " ",
    "\r": " ",
    "−": "$-$",
    "–": "--",
}


def _tex(text: str) -> str:
    return "".join(_SPECIAL.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in clean(text))


def _comment(text: str) -> str:
    return " ".join(clean(text).split())


def accuracies(study: Study, papers: Papers | None = None) -> Table:
    """Table 2's form: a row for each backbone and training set, a column for each test set; the paper's beside ours."""
    papers, arms = papers or {}, study.arms
    heads, signed = ["Model", "Trained on", "Trainings"], set()
    theirs = [arm for arm in arms if any(test == arm for _, _, test in papers)]
    for arm in arms:
        heads.append(arm)
        if arm in theirs:
            signed.add(len(heads) + 1)
            heads += [f"{arm}, paper", "ours − paper"]
    rows = []
    for row in study.rows:
        values: list[Value] = [row.name, row.cell.train, str(len(row.trained))]
        for arm in arms:
            ours = row.accuracy(arm)
            values.append(ours)
            if arm in theirs:
                paper = papers.get((row.cell.backbone, row.cell.train, arm))
                values += [None, None] if paper is None else [paper / 100, ours and ours.value - paper / 100]
        rows.append(tuple(values))
    note = "Percent of images predicted right, mean of trainings. Student's 95 % interval, cut at 0 and 100, from 3 on."
    note += f" Test images: {_counts(study)}; where the numbers differ, columns are of other images."
    if {"mixed-same", "mixed-rand"} <= set(arms):
        note += f" Backgrounds of mixed-rand are of any of the {len(study.classes)} classes, the own one among them."
    return Table("accuracies", "Accuracy by training and test set", tuple(heads), tuple(rows), note, frozenset(signed))


def _counts(study: Study) -> str:
    """Say how many images each test set has."""
    counts = {arm: {len(said.keys) for row in study.rows for said in row.of(arm).values()} for arm in study.arms}
    return ", ".join(f"{arm} {' or '.join(map(str, sorted(some)))}" for arm, some in counts.items())


def gaps(study: Study) -> Table:
    """The BG-gap and X minus X_FG of each row, with both intervals and McNemar's test."""
    heads = ("Model", "Trained on", "Difference", "Over images", "Over trainings", "McNemar, largest p")
    rows: list[tuple[Value, ...]] = []
    for title, first, second in (("BG-gap", "mixed-same", "mixed-rand"), ("X minus X_FG", "x", "x_fg")):
        for row in study.rows:
            if found := row.minus(first, second):
                rows.append((row.name, row.cell.train, title, found.images, found.seeds, p_value(found)))
    note = (
        "Points. BG-gap: mixed-same minus mixed-rand, which differ in whose background is seen only; X minus X_FG "
        "mixes a missing background with an unknown black one. Over images: paired bootstrap, trainings held fixed, "
        "each image's difference being its mean over them. Over trainings: Student's t, from 3 on. McNemar's test: "
        "exact, one for each training."
    )
    return Table("gaps", "What the background does", heads, tuple(rows), note, frozenset((3, 4)))


def p_value(found: Difference) -> str:
    """Return the largest p of the trainings, for people."""
    p = max(found.mcnemar)
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def lost_classes(row: Row, classes: Sequence[str]) -> Table:
    """Who loses most from X to X_FG: mean over trainings of each class's accuracy."""
    x, fg = row.of("x"), row.of("x_fg")
    seeds = sorted(x.keys() & fg.keys())
    rows: list[tuple[Value, ...]] = []
    if seeds:
        a, b = (np.stack([per_class(some[seed], len(classes)) for seed in seeds]).mean(0) for some in (x, fg))
        counts = np.bincount(x[seeds[0]].labels, minlength=len(classes))
        order = sorted((n for n in range(len(classes)) if counts[n]), key=lambda n: (b[n] - a[n], n))
        rows = [(classes[n], str(counts[n]), float(a[n]), float(b[n]), float(b[n] - a[n])) for n in order]
    heads, title = ("Class", "Images", "x", "x_fg", "change"), f"Classes that lose most: {row.name}"
    note = "Mean over trainings. A class has few images: its figure varies by chance, and the first rows are extremes."
    return Table("classes", title, heads, tuple(rows), note, frozenset((4,)))


def grouped(study: Study, arm: str, group_of: Mapping[str, str], train_counts: Mapping[str, int]) -> Table:
    """Waterbirds' groups: the average by the training set's groups and the worst group, always both.

    Args:
        study: its trainings.
        arm: the test set.
        group_of: key -> group.
        train_counts: group -> images in the data set's own training set.

    Raises:
        UsageError: an image has no group; a group occurs in one of training and test only.
    """
    rows: list[tuple[Value, ...]] = []
    for row in study.rows:
        found = [groups(some, group_of, train_counts) for some in row.of(arm).values()]
        if found:
            worst = ", ".join(sorted({one.worst_group for one in found}))
            columns = ([one.average for one in found], [one.worst for one in found], [one.plain for one in found])
            average, least, plain = (over_seeds(values) for values in columns)
            rows.append((row.name, row.cell.train, average, least, worst, plain))
    heads = ("Model", "Trained on", "Average by train groups", "Worst group", "Which", "Test set as it is")
    note = (
        "The average weighs each group by its share of the training set; the worst is each training's own, and the "
        "mean is over trainings. The test set as it is weighs groups by its own shares, not the training set's."
    )
    return Table("groups", f"Groups of {arm}", heads, tuple(rows), note)


def compared(first: Study, second: Study) -> Table:
    """Compare two studies: accuracy of the second minus the first, for each row and test set that both have.

    Raises:
        UsageError: a test set is of other images in the two.
    """
    rows: list[tuple[Value, ...]] = []
    for a, b in both(first, second):
        for arm in first.arms:
            found = b.minus(arm, arm, a)
            if found:
                one, two = a.accuracy(arm), b.accuracy(arm)
                rows.append((a.name, a.cell.train, arm, one, two, found.images, found.seeds, p_value(found)))
    heads = ("Model", "Trained on", "Test set", f"{first.name} ({first.dataset})", f"{second.name} ({second.dataset})")
    more = ("second − first, over images", "second − first, over trainings", "McNemar, largest p")
    note = "The same images, and trainings of the same seed, on both sides."
    return Table("compared", "Two studies compared", (*heads, *more), tuple(rows), note, frozenset((5, 6)))


def findings_table(found: Iterable[Finding]) -> Table:
    """The paper's findings over data sets and backbones."""
    rows = tuple((one.claim, one.dataset, one.row, one.figure, sentence(one)) for one in found)
    note = "The interval is the wider one of that over images and that over trainings; a verdict needs all of it."
    heads = ("Finding", "Data set", "Model", "Difference", "Verdict")
    return Table("findings", "The paper's findings", heads, rows, note, frozenset((3,)))
