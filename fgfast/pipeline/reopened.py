"""The plan of a run that is there, from what its ledger says: to write its samples again, as that run would."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fgfast.background import Background
from fgfast.config import Selection, Settings
from fgfast.errors import FgfastError, OutputRefusedError
from fgfast.io.ledger import Ledger
from fgfast.io.output import Output
from fgfast.io.portable_paths import PortablePaths, resolved
from fgfast.pipeline.plan import Plan, names
from fgfast.pipeline.resume import Changes, Found
from fgfast.pipeline.twin import Source, facts_in, ledger_in, output_of

# The settings that say how a cut-out is written; they stand in the fingerprint as they are.
_WRITTEN = ("detector", "segmenter", "format", "keep_names", "quality", "crop", "pad", "masks")


@dataclass(frozen=True)
class ReopenedPlan(Plan):
    """The plan of an earlier run.

    Attributes:
        source: what that run was made from, as its ledger says.
        cpu_threads: of that run.
        recorded_total: number of samples that it was to have; None where it did not end.
        unwritable: why no image can be written, in a sentence: its background is gone; empty where images can be. What
            needs no image can be decided nevertheless.
    """

    source: Mapping[str, Any] = field(default_factory=dict)
    cpu_threads: int = 1
    recorded_total: int | None = None
    unwritable: str = ""

    def describe(self) -> dict[str, Any]:
        """What the run was made from; see `Plan.describe`."""
        return dict(self.source)


def output_in(out: Path) -> Output:
    """Return the output in a folder, to be opened.

    Raises:
        OutputRefusedError: there is no run of fgfast.
    """
    with Ledger(ledger_in(out), write=False) as ledger:
        return output_of(ledger, out)


def reopen(output: Output, root: Path | None = None) -> ReopenedPlan:
    """Return the plan of the run in an output whose ledger is open.

    Args:
        output: the output.
        root: the data set's folder, where it has moved.

    Raises:
        UsageError: the data set is no longer there.
        OutputRefusedError: the ledger does not say what the run was made from.
        DatasetError: an annotation file is malformed.
    """
    ledger = output.ledger
    made, source = ledger.meta("fingerprint"), ledger.meta("source") or {}
    from_there = Source.of(ledger, output.out, root)
    dataset = from_there.open()
    try:
        settings, unwritable = _settings(made, source, output.out)
    except FgfastError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise OutputRefusedError(f"{output.out} was made with settings that are not understood: {error!r}") from error
    if root is not None:
        source = {**source, "root": PortablePaths(output.out, Path(dataset.root)).path(str(dataset.root))}
    twins, mask_names = names(
        [sample.key for sample in dataset.samples], settings.format, settings.keep_names or dataset.fixed_names
    )
    facts = facts_in(output.run_json)
    return ReopenedPlan(
        dataset=dataset,
        labels=from_there.labels,
        selection=Selection(),
        out=output.out,
        settings=settings,
        reasons=_sentences(facts.get("choices")),
        positions=tuple(range(len(dataset.samples))),
        excluded=frozenset(),
        twins=twins,
        mask_names=mask_names,
        fingerprint=made,
        warnings=_sentences(facts.get("warnings")),
        source=source,
        cpu_threads=_number(facts.get("machine"), "cpu_threads") or 1,
        recorded_total=_number(facts.get("result"), "total"),
        unwritable=unwritable,
    )


def found_in(plan: ReopenedPlan, output: Output) -> Found:
    """Return what the output holds, for `fgfast.pipeline.finish`: everything is finished, and nothing is new."""
    rows = {outcome.key: outcome.status for outcome in output.ledger.outcomes()}
    waiting = output.ledger.labels().keys() - rows.keys()
    unended = plan.recorded_total is None or plan.recorded_total >= len(rows) + len(waiting)
    return Found(rows, frozenset(rows) | (waiting if unended else frozenset()), Changes())


def _settings(made: Mapping[str, Any], source: Mapping[str, Any], out: Path) -> tuple[Settings, str]:
    """Return the settings by which an image is cut out and written, and why none can be; see `ReopenedPlan`."""
    given = {name: made[name] for name in _WRITTEN}
    described = str(made["background"])
    if source.get("background") is None:
        return Settings(**given, background=Background.parse(described)), ""
    path = resolved(str(source["background"]), out)
    background = Background.parse(str(path)) if path.is_file() else None
    if background is None or background.describe() != described:
        return Settings(
            **given
        ), f"the background {path} is gone or has changed: put it back, and open the review again"
    return Settings(**given, background=background), ""


def _sentences(value: Any) -> tuple[str, ...]:
    return tuple(filter(lambda one: isinstance(one, str), value)) if isinstance(value, list) else ()


def _number(value: Any, name: str) -> int | None:
    number = value.get(name) if isinstance(value, dict) else None
    return number if type(number) is int and 0 <= number < 1 << 40 else None
