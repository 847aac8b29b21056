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
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from fgfast.config import differences
from fgfast.errors import OutputFailedError, OutputRefusedError, SettingsDifferError, UsageError
from fgfast.io.ledger import Ledger, OutputLock
from fgfast.io.write import sweep_parts

Mode = Literal["auto", "resume", "overwrite"]


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
        if not out.exists():
            return
        if not out.is_dir():
            raise OutputRefusedError(f"the output {out} is a file: choose a folder")
        if self.ledger_path.is_file():
            return
        strangers = sorted(p.name for p in out.iterdir() if p.name != "fgfast")
        if strangers:
            raise OutputRefusedError(
                f"the output {out} is not empty and was not made by fgfast (it holds {', '.join(strangers[:3])}"
                f"{', ...' if len(strangers) > 3 else ''}): choose an empty or a new folder"
            )

    def open(self, mode: Mode, made_with: Mapping[str, Any], forget: Callable[[Output], None]) -> None:
        """Lock the folder, open its ledger, and compare what it was made with.

        Args:
            mode: "auto" goes on where a run with the same settings stopped, or begins; "resume" insists on going on;
                "overwrite" begins anew.
            made_with: everything that changes the result, as plain values.
            forget: deletes what the old run made; called for "overwrite".

        Raises:
            OutputLockedError: another run is writing there.
            SettingsDifferError: it holds a run made with other settings.
        """
        if mode == "resume" and not self.ledger_path.is_file():
            raise UsageError(f"there is no run to resume in {self.out}: leave --resume away to begin one")
        try:
            self.ours.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputFailedError(f"cannot make {self.ours}: {error.strerror or error}") from error
        self._held.enter_context(OutputLock(self.ours / "lock"))
        self.ledger = self._held.enter_context(Ledger(self.ledger_path))
        new = json.loads(json.dumps(made_with))  # as it comes back from the ledger
        old = self.ledger.meta("made_with")
        if old is not None and mode == "overwrite":
            forget(self)
            self.ledger.close()
            self.ledger_path.unlink()
            self.ledger = self._held.enter_context(Ledger(self.ledger_path))
            old = None
        if old is None:
            self.ledger.set_meta({"made_with": new})
        elif changed := differences(old, new):
            lines = "\n  ".join(changed)
            raise SettingsDifferError(
                f"{self.out} holds a run made with other settings:\n  {lines}\n"
                "Use the same settings to go on, --overwrite to begin anew, or another --out"
            )
        if not self.ledger.is_new:
            sweep_parts(self.out)

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()


def delete_files(paths: Iterable[Path], root: Path) -> None:
    """Delete files, and the folders below `root` that this leaves empty. Absent files are fine."""
    folders = set()
    for path in paths:
        path.unlink(missing_ok=True)
        folders.add(path.parent)
    for folder in sorted(folders, key=lambda f: len(f.parts), reverse=True):
        while folder != root and root in folder.parents:
            try:
                folder.rmdir()
            except OSError:
                break
            folder = folder.parent
