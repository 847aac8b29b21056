"""The output folder of a run: whose it is, what it holds, whether this run may go on there.

OUT/
  <data set's folder>/       the twin
  fgfast/ledger.sqlite       what is done
  fgfast/masks/              masks as PNG, or masks.parquet
  fgfast/instances.json      COCO instances
  fgfast/run.json            settings, versions, machine
  fgfast/report.html         for people
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, get_args

from fgfast.config import differences
from fgfast.errors import OutputFailedError, OutputRefusedError, SettingsDifferError, UsageError
from fgfast.io.ledger import Ledger, OutputLock
from fgfast.io.write import sweep_parts

Mode = Literal["auto", "resume", "overwrite"]
MODES: tuple[str, ...] = get_args(Mode)

# What a run that was killed before it had a ledger may have left in OUT/fgfast.
_BEFORE_THE_LEDGER = ("lock", "lock.owner", "ledger.sqlite", "ledger.sqlite-journal")


class Output:
    """An output folder, locked for one run. Use as a context manager.

    Attributes:
        out: the folder.
        twin: the folder of the twin inside it.
        ledger: the open ledger.
    """

    def __init__(self, out: Path, folder: str) -> None:
        """Paths only; `open` takes the folder."""
        self.out = out
        self.twin = out / folder
        self.ours = out / "fgfast"
        self.masks = self.ours / "masks"
        self.instances = self.ours / "instances.json"
        self.parquet = self.ours / "masks.parquet"
        self.run_json = self.ours / "run.json"
        self.report = self.ours / "report.html"
        self.ledger_path = self.ours / "ledger.sqlite"
        self._held = contextlib.ExitStack()
        self.ledger: Ledger

    def check(self, source: Path) -> None:
        """Refuse a folder that must not be written, before anything is touched.

        Raises:
            OutputRefusedError: inside the input, around it, a file, or a folder with contents that are not ours.
        """
        out, source = self.out.resolve(), source.resolve()
        if out == source or source in out.parents:
            raise OutputRefusedError(f"the output {out} lies inside the data set {source}: choose a folder outside it")
        if out in source.parents:
            raise OutputRefusedError(f"the output {out} contains the data set {source}: choose another folder")
        if self.twin.name.lower() == self.ours.name:
            raise OutputRefusedError(f"a data set's folder cannot be called {self.twin.name!r}: rename {source}")
        for path in (self.twin, self.ours, self.masks):
            if path.is_symlink():
                raise OutputRefusedError(f"{path} is a link, which could lead writing astray: choose another folder")
        if not out.exists():
            return
        if not out.is_dir():
            raise OutputRefusedError(f"the output {out} is a file: choose a folder")
        if self.ledger_path.is_file():
            return
        strangers = sorted(p.name for p in out.iterdir() if p != out / self.ours.name)
        if self.ours.is_dir():
            strangers += sorted(f"fgfast/{p.name}" for p in self.ours.iterdir() if p.name not in _BEFORE_THE_LEDGER)
        if strangers:
            raise OutputRefusedError(
                f"the output {out} is not empty and was not made by fgfast (it holds {', '.join(strangers[:3])}"
                f"{', ...' if len(strangers) > 3 else ''}): choose an empty or a new folder"
            )

    def open(self, mode: Mode, made_with: Mapping[str, Any], source: Path) -> None:
        """Lock the folder, open its ledger, and compare what it was made with.

        Args:
            mode: "auto" goes on where a run with the same settings stopped, or begins; "resume" insists on going on;
                "overwrite" begins anew.
            made_with: everything that changes the result, as plain values.
            source: the data set's folder.

        Raises:
            OutputRefusedError: as for `check`.
            OutputLockedError: another run is writing there.
            SettingsDifferError: it holds a run made with other settings.
        """
        self.check(source)
        if mode == "resume" and not self.ledger_path.is_file():
            raise self._nothing_to_resume()
        try:
            self.ours.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputFailedError(f"cannot make {self.ours}: {error.strerror or error}") from error
        self._held.enter_context(OutputLock(self.ours / "lock"))
        self.ledger = self._held.enter_context(Ledger(self.ledger_path))
        sweep_parts(self.out)
        if self.ledger.meta("made_with") is not None and (mode == "overwrite" or self.ledger.meta("being_deleted")):
            self._delete_all()
            self.ledger = self._held.enter_context(Ledger(self.ledger_path))
        new = json.loads(json.dumps(made_with))  # as it comes back from the ledger
        if self.ledger.meta("made_with") is None:
            self.ledger.set_meta({"made_with": new, "folder": self.twin.name})
        self._compare(self.ledger.meta("made_with"), new)

    def _delete_all(self) -> None:
        """Delete what the recorded run made, and last its ledger.

        That this has begun is written down first: killed in the middle, the next run deletes the rest before it does
        anything else.
        """
        self.ledger.set_meta({"being_deleted": True})
        twin = self.out / self.ledger.meta("folder")
        files = [twin / o.twin for o in self.ledger.outcomes(("done", "flagged")) if o.twin]
        for name in ("settling", "annotation_files"):
            files += [self.out / path for path in self.ledger.meta(name) or ()]
        files += [self.instances, self.parquet, self.run_json, self.report]
        delete_files(files, self.out)
        shutil.rmtree(self.masks, ignore_errors=True)  # nothing in it is anybody else's
        self.ledger.close()
        self.ledger_path.unlink()

    def recorded(self) -> dict[str, Any] | None:
        """What the run in this folder was made with; None where there is none to go on with."""
        if not self.ledger_path.is_file():
            return None
        with Ledger(self.ledger_path) as ledger:
            found: dict[str, Any] | None = None if ledger.meta("being_deleted") else ledger.meta("made_with")
        return found

    def foresee(self, mode: Mode, made_with: Mapping[str, Any]) -> None:
        """Raise what `open` would raise for its settings, without touching anything (for a dry run)."""
        if not self.ledger_path.is_file():
            if mode == "resume":
                raise self._nothing_to_resume()
            return
        old = self.recorded()
        if mode != "overwrite" and old is not None:
            new = json.loads(json.dumps(made_with))
            if new.get("decoder") == "auto":  # chosen when the run begins, as in the run that is gone on with
                new["decoder"] = old.get("decoder")
            self._compare(old, new)

    def _nothing_to_resume(self) -> UsageError:
        return UsageError(f"there is no run to resume in {self.out}: leave --resume away to begin one")

    def _compare(self, old: dict[str, Any], new: dict[str, Any]) -> None:
        if changed := differences(old, new):
            lines = "\n  ".join(changed)
            raise SettingsDifferError(
                f"{self.out} holds a run made with other settings:\n  {lines}\n"
                "Use the same settings to go on, --overwrite to begin anew, or another --out"
            )

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()


def delete_files(paths: Iterable[Path], root: Path) -> None:
    """Delete files, and the folders below `root` that this leaves empty.

    Absent files are fine. What a link would lead out of `root` stays.
    """
    folders: dict[Path, bool] = {}
    for path in paths:
        if path.parent not in folders:
            folders[path.parent] = path.parent.resolve().is_relative_to(root.resolve())
        if folders[path.parent]:
            path.unlink(missing_ok=True)
    for folder in sorted(folders, key=lambda f: len(f.parts), reverse=True):
        while folder != root and root in folder.parents:
            try:
                folder.rmdir()
            except OSError:
                break
            folder = folder.parent
