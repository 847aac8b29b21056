"""The kinds of SQLite files in an output: what identifies each, its schema, and what its errors advise."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fgfast.errors import OutputRefusedError
from fgfast.io.ledger_rows import APPLICATION_ID, SCHEMA, SCHEMA_VERSION


@dataclass(frozen=True)
class Kind:
    """A kind of SQLite file.

    Attributes:
        name: what it is called in messages; `a` with its article.
        application_id: what its header says.
        version: of its schema.
        schema: the statements that make it.
        way_out: what to do about a file that is none.
        if_other_version: what to do about one of another version.
        if_damaged: what to do about a damaged one; "{out}" stands for the output.
        if_full: what is kept where the disk is full, and what to do.
    """

    name: str
    a: str
    application_id: int
    version: int
    schema: tuple[str, ...]
    way_out: str
    if_other_version: str
    if_damaged: str
    if_full: str

    def unreadable(self, path: Path, error: Exception) -> OutputRefusedError:
        """Return the error of a file that cannot be read."""
        return OutputRefusedError(f"{path} is not a readable fgfast {self.name} ({error}); {self.way_out}")

    def not_ours(self, path: Path, why: str) -> OutputRefusedError:
        """Return the error of a file that fgfast does not make."""
        return OutputRefusedError(f"{path} was not made by fgfast: {why}. Nothing was changed; {self.way_out}")

    def damaged(self, path: Path, why: object) -> OutputRefusedError:
        """Return the error of a file whose content is damaged."""
        advice = self.if_damaged.format(out=path.parent.parent)
        return OutputRefusedError(f"the {self.name} {path} is damaged ({why}): {advice}")


LEDGER = Kind(
    name="ledger",
    a="a ledger",
    application_id=APPLICATION_ID,
    version=SCHEMA_VERSION,
    schema=SCHEMA,
    way_out="choose another --out",
    if_other_version="choose another --out, or delete this output and convert again",
    if_damaged="delete {out} and convert again, or choose another --out",
    if_full="Finished images are kept: free some space or repair the disk, then run the same command again",
)
