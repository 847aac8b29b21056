"""What the plan of an expansion expects of its output; see `fgfast.pipeline.resume.Expected`."""

from __future__ import annotations

from fgfast.expand.names import Claimed
from fgfast.expand.plan import ExpandPlan
from fgfast.io.ledger_paths import in_folders
from fgfast.io.ledger_queries import Row
from fgfast.io.output import Output
from fgfast.records import Sample


class ExpectedExpansion:
    """What a plan expects of its output."""

    def __init__(self, plan: ExpandPlan, output: Output) -> None:
        """Expect what this plan writes to this output, which is open.

        What a person rejected in the run since, or what it no longer has a mask of, leaves the expansion, too. What a
        run has not converted yet stays: one that was begun anew will have all masks again.
        """
        self._plan, self._names = plan, plan.names
        self.samples, self.positions = plan.dataset.samples, plan.positions
        self._keys = {sample.key for sample in self.samples}
        known = self._keys & output.ledger.labels().keys()
        self.excluded = plan.excluded | (known - set(plan.usable.keys) - plan.usable.waiting)

    def digest(self, sample: Sample) -> bytes:
        """Return the digest of a sample's mask, annotations and decisions."""
        return self._plan.digest(sample)

    def owns(self, row: Row) -> bool:
        """Whether the files of a finished sample lie where this kind writes, and are not another sample's."""
        if row.twin is None:
            return not row.files
        owners = {self._names.owner(path) for path in row.files}
        gone = row.key not in self._keys and owners <= {None}
        return (owners <= {row.key} or gone) and all(in_folders(path, self._names.top) for path in row.files)

    def writes(self, row: Row) -> bool:
        """Whether a finished sample's files have the names that they are given now."""
        return row.twin == self._plan.shown(row.key) and self._names.writes(row)

    def claimed(self) -> Claimed:
        """Return the paths of the files of the selected samples."""
        return Claimed(self._names, {self.samples[n].key for n in self.positions})

    def may_write(self, path: str) -> bool:
        """Whether it is the path of a file of a sample."""
        return self._names.owner(path) is not None
