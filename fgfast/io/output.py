"""The output folder of a run: its layout, its checks, and whether this run may continue in it.

OUT/
  <data set's folder>/       the twin
  fgfast/ledger.sqlite       one outcome per sample
  fgfast/decisions.sqlite    what people decided about them; stays whatever is made again
  fgfast/instances.json      COCO instances of the twin's images
  fgfast/originals.json      COCO instances of the data set's images
  fgfast/run.json            settings, versions, machine
  fgfast/report.html         a page to read
  fgfast/flagged.csv         the flagged images
  fgfast/failed.csv          the failed images
  .masks/                    masks as PNG (or fgfast/masks.parquet)
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from fgfast.config import differences
from fgfast.errors import NameRefusedError, OutputRefusedError, SettingsDifferError, UsageError
from fgfast.files import open_regular
from fgfast.io.earlier_run import elsewhere, named_files, unchanged_files
from fgfast.io.ledger import Ledger
from fgfast.io.ledger_rows import APPLICATION_ID
from fgfast.io.listing import FAILED, FLAGGED
from fgfast.io.lock import OutputLock
from fgfast.writing import (
    Folders,
    Target,
    check_in_place,
    delete_files,
    make_folder,
    refuse_links,
    remove,
    remove_folder,
    remove_tree,
    sweep_temp_files,
    sync_folders,
    walk,
)
from fgfast.writing.target import failed

Mode = Literal["auto", "resume", "overwrite"]
MODES: tuple[str, ...] = get_args(Mode)

# Files that a run may have left in OUT/fgfast when it was killed before it had a ledger.
_HEADER = 72  # bytes, up to the application id
_BEFORE_THE_LEDGER = (
    *("lock", "lock.owner", "ledger.sqlite", "ledger.sqlite-journal"),
    *("decisions.sqlite", "decisions.sqlite-journal"),  # which --overwrite leaves
)


class Output(contextlib.AbstractContextManager["Output"]):
    """An output folder, locked for one run; a context manager.

    Attributes:
        out: the folder.
        twin: the folder of the twin inside it.
        others: names of further folders that a run writes to.
        ledger: the open ledger.
    """

    def __init__(self, out: Path, folder: str, others: Sequence[str] = ()) -> None:
        """Compute the paths; `open` locks the folder."""
        self.out, self.others = out, tuple(others)
        self.twin = out / folder
        self.ours = out / "fgfast"
        # Loaders of images walk all of OUT. Most of them skip hidden folders; torchvision's ImageFolder does not, but
        # takes OUT/fgfast for a class without images and raises.
        self.masks = out / ".masks"
        self.instances = self.ours / "instances.json"
        self.originals = self.ours / "originals.json"
        self.parquet = self.ours / "masks.parquet"
        self.run_json = self.ours / "run.json"
        self.report = self.ours / "report.html"
        self.flagged = self.ours / FLAGGED
        self.failed = self.ours / FAILED
        self.ledger_path = self.ours / "ledger.sqlite"
        self._held = contextlib.ExitStack()
        self.ledger: Ledger

    @property
    def about_the_run(self) -> tuple[Path, ...]:
        """The files about the whole twin in OUT/fgfast, not all of which every run writes."""
        masks = self.instances, self.originals, self.parquet
        return (*masks, self.run_json, self.report, self.flagged, self.failed)

    def target(self, path: Path) -> Target:
        """Return the place of a file or folder of this output, to write to it; no link below `out` is followed."""
        return Target.of(self.out, path)

    @property
    def _folders(self) -> tuple[Target, ...]:
        """The folders that hold all files of an output."""
        return tuple(self.target(self.out / name) for name in (self.ours.name, *self.names))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the folders that hold the files of samples."""
        return self.twin.name, self.masks.name, *self.others

    @property
    def has_ledger(self) -> bool:
        """Whether there is a ledger of fgfast; an empty file is none, and nor is another program's."""
        if not self.ledger_path.is_file():
            return False
        try:
            with open_regular(self.ledger_path) as file:
                header = file.read(_HEADER)
        except OSError as error:
            raise OutputRefusedError(f"{self.ledger_path} cannot be read: {error.strerror or error}") from error
        # https://sqlite.org/fileformat.html, "The Database Header"
        return header.startswith(b"SQLite format 3\0") and header[68:72] == APPLICATION_ID.to_bytes(4, "big")

    def sweep_temp_files(self) -> None:
        """Delete the temporary files that killed processes left."""
        sweep_temp_files(self._folders, [Target(self.out)])

    def check(self, source: Path) -> None:
        """Refuse a folder that must not be written to, before anything is changed.

        Raises:
            OutputRefusedError: the output is inside the data set, contains it, is a file, holds foreign files, or a
                link where nothing but files and folders of fgfast's own may be.
        """
        out, source = self.out.resolve(), source.resolve()
        if out == source or source in out.parents:
            raise OutputRefusedError(f"the output {out} is inside the data set {source}: choose a folder outside it")
        if out in source.parents:
            raise OutputRefusedError(f"the output {out} contains the data set {source}: choose another folder")
        if self.twin.name.lower() in (self.ours.name, self.masks.name, *self.others):
            raise OutputRefusedError(f"a data set's folder cannot be called {self.twin.name!r}: rename {source}")
        if not out.exists():
            return
        if not out.is_dir():
            raise OutputRefusedError(f"the output {out} is a file: choose a folder")
        refuse_links(self._folders)
        if self.ours.exists() and not self.ours.is_dir():
            raise OutputRefusedError(f"{self.ours} is a file, where fgfast needs a folder: choose another --out")
        for name in _BEFORE_THE_LEDGER:
            check_in_place(self.target(self.ours / name))
        if self.has_ledger:
            return
        foreign = sorted(p.name for p in out.iterdir() if p != out / self.ours.name)
        if self.ours.is_dir():
            foreign += sorted(f"fgfast/{p.name}" for p in self.ours.iterdir() if p.name not in _BEFORE_THE_LEDGER)
        if foreign:
            raise OutputRefusedError(
                f"the output {out} is not empty and was not made by fgfast (it holds {', '.join(foreign[:3])}"
                f"{', ...' if len(foreign) > 3 else ''}): choose an empty or a new folder"
            )

    def open(self, mode: Mode, fingerprint: Mapping[str, Any], source: Path) -> bool:
        """Lock the folder, open its ledger, and compare the recorded fingerprint with this run's.

        Args:
            mode: "auto" resumes a run with the same fingerprint, or starts one; "resume" requires a run to resume;
                "overwrite" deletes the earlier run and starts one.
            fingerprint: everything that changes the result, as plain values.
            source: the data set's folder.

        Returns:
            Whether the folder holds a run that did not end cleanly. What it wrote last may not be what the ledger says.

        Raises:
            OutputRefusedError: `check` refuses the folder.
            OutputLockedError: another run is writing to the folder.
            SettingsDifferError: the folder holds a run with another fingerprint.
        """
        self.check(source)
        if mode == "resume" and not self.has_ledger:
            raise self._nothing_to_resume()
        make_folder(self.target(self.ours))
        self._held.enter_context(OutputLock(self.ours / "lock"))
        self.ledger = self._held.enter_context(Ledger(self.ledger_path))
        self.sweep_temp_files()
        self._expect_no_deletion(self.ledger, mode)
        if mode == "overwrite" and self.ledger.meta("fingerprint") is not None:
            self._delete_all()
            self.ledger = self._held.enter_context(Ledger(self.ledger_path))
        unclean = self.ledger.meta("clean") is False
        if unclean:
            self.ledger.check()
        new = json.loads(json.dumps(fingerprint))  # the form in which the ledger returns it
        if self.ledger.meta("fingerprint") is None:
            self.ledger.set_meta({"fingerprint": new, "folder": self.twin.name})
        self._compare(self.ledger.meta("fingerprint"), new)
        self._expect_folder(self.ledger)
        self.ledger.set_meta({"clean": False})
        return unclean

    def reopen(self) -> None:
        """Lock the folder of a run, and open its ledger to change rows; the run itself is not resumed.

        Raises:
            OutputRefusedError: it holds no run, or one that is being deleted.
            OutputLockedError: another process is writing to the folder.
        """
        if not self.has_ledger:
            raise self._nothing_to_resume()
        self._held.enter_context(OutputLock(self.ours / "lock"))
        self.ledger = self._held.enter_context(Ledger(self.ledger_path))
        self._expect_no_deletion(self.ledger, "resume")
        self._expect_folder(self.ledger)

    def _delete_all(self) -> None:
        """Delete the files of the recorded run, and its ledger last.

        The ledger records first that the deletion has begun: after a kill nothing is resumed from the rest. Only what
        lies where a run writes is deleted. Where the earlier run was of a data set with another folder, that folder is
        only the ledger's claim, and the ledger may be anybody's: there a file is deleted if it is as recorded.
        """
        self.ledger.set_meta({"being_deleted": True})
        name = self.ledger.meta("folder") or self.twin.name
        if name == self.twin.name:
            files = named_files(self.ledger, self.names)
        else:
            files = unchanged_files(self.ledger, self.out, name, (self.masks.name, *self.others))
        beside = elsewhere(self.ledger, self.out, (name, self.ours.name, *self.names))
        delete_files(self.out, [*files, *beside, *(self.target(path).name for path in self.about_the_run)])
        tops = dict.fromkeys(path.partition("/")[0] for path in beside if "/" in path)
        for folder in (name, *self.others, *tops):
            sweep_temp_files([Target(self.out, folder)])
            for listing in reversed([*walk(Target(self.out, folder))]):
                remove_folder(listing.folder)  # where it is empty
        remove_tree(self.target(self.masks))  # it holds no foreign files
        self.ledger.close()
        remove(self.target(self.ledger_path))

    def make_folders(self, images: Iterable[str], masks: Iterable[str], others: Iterable[str] = ()) -> None:
        """Create all folders in advance, so that a file's name is durable once its own folder is synced.

        Args:
            images: keys of the images in the twin.
            masks: paths of the masks in the masks folder.
            others: paths of further files, relative to the output folder.

        Raises:
            OutputRefusedError: one of them is a link.
            OutputFailedError: the disk is full, read-only or failing.
        """
        names = {f"{self.twin.name}/{key}".rpartition("/")[0] for key in images}
        names |= {f"{self.masks.name}/{path}".rpartition("/")[0] for path in masks}
        names |= {path.rpartition("/")[0] for path in others}
        made = {""}
        with Folders(self.out, make=True) as folders:
            for name in sorted(names):
                try:
                    folders.open(name)
                except OSError as error:
                    refused = failed(self.out / name, error)
                    if not isinstance(refused, NameRefusedError):
                        raise refused from error
                    continue  # its images fail, each with this reason
                while name not in made:
                    made.add(name)
                    name = name.rpartition("/")[0]
            try:
                sync_folders(folders, made)
            except OSError as error:
                raise failed(self.out, error) from error

    def recorded(self) -> dict[str, Any] | None:
        """Return the fingerprint of the run in this folder, or None where there is no run to resume."""
        if not self.has_ledger:
            return None
        with Ledger(self.ledger_path, write=False) as ledger:
            found: dict[str, Any] | None = None if ledger.meta("being_deleted") else ledger.meta("fingerprint")
        return found

    def preflight(self, mode: Mode, fingerprint: Mapping[str, Any]) -> None:
        """Raise what `open` would raise for this fingerprint, without changing anything."""
        if not self.has_ledger:
            if mode == "resume":
                raise self._nothing_to_resume()
            return
        with Ledger(self.ledger_path, write=False) as ledger:
            self._expect_no_deletion(ledger, mode)
        old = self.recorded()
        if mode != "overwrite" and old is not None:
            new = json.loads(json.dumps(fingerprint))
            if new.get("decoder") == "auto":  # a resumed run keeps the decoder that the first one chose
                new["decoder"] = old.get("decoder")
            self._compare(old, new)
            with Ledger(self.ledger_path, write=False) as ledger:
                self._expect_folder(ledger)

    def known_keys(self) -> set[str]:
        """Return the keys of all samples that runs in this folder have had."""
        if not self.has_ledger:
            return set()
        with Ledger(self.ledger_path, write=False) as ledger:
            return set(ledger.labels())

    def _expect_no_deletion(self, ledger: Ledger, mode: Mode) -> None:
        """Raise if the run was being deleted, unless the user asks for that: a ledger, maybe a stranger's, does not."""
        if mode != "overwrite" and ledger.meta("being_deleted"):
            raise OutputRefusedError(
                f"the deletion of the earlier run in {self.out} was interrupted: run the same command again with "
                "--overwrite to finish it, or choose another --out"
            )

    def _expect_folder(self, ledger: Ledger) -> None:
        """Raise unless the recorded run was of a data set whose twin has the same folder."""
        if (folder := ledger.meta("folder")) != (own := self.twin.name):
            raise SettingsDifferError(
                f"{self.out} holds the twin {folder!r}, not {own!r}: if the data set's folder was renamed, give it "
                "its name back; else choose another --out, or --overwrite"
            )

    def _nothing_to_resume(self) -> UsageError:
        return UsageError(f"there is no run to resume in {self.out}: omit --resume to start one")

    def _compare(self, old: dict[str, Any], new: dict[str, Any]) -> None:
        if changed := differences(old, new):
            lines = "\n  ".join(changed)
            raise SettingsDifferError(
                f"{self.out} holds a run made with other settings:\n  {lines}\n"
                "Use the same settings to resume it, --overwrite to start from scratch, or another --out"
            )

    def __exit__(self, *exc: object) -> None:
        self._held.close()
