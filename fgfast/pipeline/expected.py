"""What the plan of a conversion expects of its output: the names of its files, and what each result depends on."""

from __future__ import annotations

from functools import cached_property

from fgfast.io.ledger_paths import named_after
from fgfast.io.ledger_queries import Row
from fgfast.io.output import Output
from fgfast.pipeline.plan import Plan
from fgfast.records import Sample, sample_digest


class ExpectedTwin:
    """What a plan expects of its output; see `fgfast.pipeline.resume.Expected`."""

    def __init__(self, plan: Plan, output: Output) -> None:
        """Expect what this plan writes to this output."""
        self._plan, self._output = plan, output
        self.samples, self.positions, self.excluded = plan.dataset.samples, plan.positions, plan.excluded

    def digest(self, sample: Sample) -> bytes:
        """Return the digest of what the data set says about a sample."""
        return sample_digest(sample)

    def owns(self, row: Row) -> bool:
        """Whether the files of a finished sample are its image and its mask, where a run writes them."""
        if row.twin is None:
            return not row.files
        folder, masks = f"{self._output.twin.name}/", f"{self._output.masks.name}/"
        rest = row.files.keys() - {folder + row.twin}
        return (
            len(rest) == len(row.files) - 1 <= 1
            and named_after(row.twin, row.key)
            and all(name.startswith(masks) and named_after(name[len(masks) :], row.twin, ".png") for name in rest)
        )

    def writes(self, row: Row) -> bool:
        """Whether a finished sample has the files that this plan gives it."""
        return row.twin == self._plan.twins[row.key] and row.files.keys() == paths_of(self._plan, self._output, row.key)

    def claimed(self) -> set[str]:
        """Return the paths of all files of the selected samples."""
        keys = (self.samples[n].key for n in self.positions)
        return {path for key in keys for path in paths_of(self._plan, self._output, key)}

    def may_write(self, path: str) -> bool:
        """Whether it is the path of an image or a mask of this plan."""
        return path in self._all

    @cached_property
    def _all(self) -> set[str]:
        return {path for key in self._plan.twins for path in paths_of(self._plan, self._output, key)}


def paths_of(plan: Plan, output: Output, key: str) -> set[str]:
    """Return the paths, relative to the output folder, of the files that this plan writes for a sample."""
    found = {f"{output.twin.name}/{plan.twins[key]}"}
    if plan.settings.masks == "png":
        found.add(f"{output.masks.name}/{plan.mask_names[key]}")
    return found
