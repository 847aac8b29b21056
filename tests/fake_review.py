"""A review over a small run, and a client that speaks with its server as a browser does."""

from __future__ import annotations

import base64
import contextlib
import http.client
import importlib.util
import json
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from layouts import cub

import fgfast
from fgfast import ops
from fgfast.config import Settings
from fgfast.datasets import open_dataset
from fgfast.io.decisions import FILE, Decision, Decisions
from fgfast.io.decode import decode, read_bytes
from fgfast.io.ledger import Ledger
from fgfast.io.lock import OutputLock
from fgfast.ops.geometry import mask_box
from fgfast.records import Bool, Float32, Image, Outcome, Sample
from fgfast.review.session import Opening


def small_run(folder: Path) -> tuple[Path, Path]:
    """Convert four birds; return the output and the data set's root."""
    root = cub(folder)
    out = folder / "out"
    fgfast.convert("cub", out, root=root, settings=Settings(segmenter="box", format="png"), in_process=True)
    return out, root


class FakeFlag(NamedTuple):
    name: str
    number: float
    share: float
    sentence: str


def flags_of(numbers: Mapping[str, float]) -> Sequence[FakeFlag]:
    return [FakeFlag(name, number, 1.0, f"It is {name}.") for name, number in numbers.items()]


class _Output(NamedTuple):
    ledger: Ledger


class FakeTwin:
    """`fgfast.pipeline.twin.Twin`, as far as the server needs it."""

    def __init__(self, out: Path, root: Path) -> None:
        self.out, self.root, self.title = out, root, "cub"

    def __enter__(self) -> FakeTwin:
        self.output = _Output(Ledger(self.out / "fgfast/ledger.sqlite", write=False))
        self._samples: dict[str, Sample] = {}
        return self

    def __exit__(self, *exc: object) -> None:
        self.output.ledger.close()

    @property
    def dataset(self) -> Any:
        found = open_dataset("cub", root=self.root)
        self._samples = {sample.key: sample for sample in found.samples}
        return found

    def outcome(self, number: int) -> Outcome | None:
        return next((o for o in self.output.ledger.outcomes() if o.id == number), None)

    def sample(self, key: str) -> Sample:
        return self._samples[key]

    def image(self, key: str) -> Image:
        return decode(read_bytes(self._samples[key].path), key, turn_exif=False)

    def result(self, o: Outcome) -> Path:
        return self.out / "CUB_200_2011" / str(o.twin)

    def source_same(self, o: Outcome) -> bool:
        import hashlib

        return (
            o.source is not None and hashlib.sha256(self._samples[o.key].path.read_bytes()).digest() == o.source.sha256
        )


@dataclass(frozen=True)
class Change:
    key: str
    verdict: str
    how: str
    seen: int
    cause: str = ""
    note: str = ""
    bits: Bool | None = None
    box: Float32 | None = None


class Conflict(NamedTuple):
    key: str
    seen: int
    now: Decision


class FakeMender:
    """`fgfast.pipeline.mending.Mender`, without images."""

    def __init__(self, out: Path, error: Exception | None = None) -> None:
        self.out, self.error, self.stale, self.finished = out, error, False, 0

    def __enter__(self) -> FakeMender:
        with contextlib.ExitStack() as held:
            held.enter_context(OutputLock(self.out / "fgfast/lock"))
            self.ledger = held.enter_context(Ledger(self.out / "fgfast/ledger.sqlite"))
            self.decisions = held.enter_context(Decisions(self.out / "fgfast" / FILE, write=True))
            self._held = held.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._held.close()

    def decide(self, changes: Sequence[Any], who: str) -> list[Outcome | Conflict]:
        if self.error is not None:
            raise self.error
        outcomes = {o.key: o for o in self.ledger.outcomes()}
        return [self._decide(outcomes[change.key], change, who) for change in changes]

    def _decide(self, o: Outcome, change: Any, who: str) -> Outcome | Conflict:
        last = self.decisions.last(o.key)
        if last != change.seen:
            now = self.decisions.get(last)
            assert now is not None
            return Conflict(o.key, change.seen, now)
        when = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        after = None if change.bits is None else ops.rle_encode(change.bits)
        box = change.box if change.box is not None else (mask_box(change.bits) if change.bits is not None else None)
        made = Decision(
            o.key, change.verdict, change.how, who, when, change.seen, change.cause, change.note,
            size=o.size, box=box, before=o.rle, after=after, was=replace(o, files={}),
        )  # fmt: skip
        self.decisions.finish(self.decisions.append([made]))
        new = replace(o, status="done", reasons=(), rle=after or o.rle)
        if change.verdict == "reject":
            new = replace(o, status="skipped", reasons=("rejected",), twin=None)
        self.ledger.record([new])
        self.stale = True
        return new

    def undo(self, numbers: Sequence[int], who: str) -> list[Outcome | Conflict]:
        found: list[Outcome | Conflict] = []
        for number in numbers:
            old = self.decisions.get(number)
            assert old is not None and old.was is not None
            seen = self.decisions.last(old.key)
            undone = replace(old, verdict="undo", how="undo", undoes=number, seen=seen, was=None, number=0, done=False)
            self.decisions.finish(self.decisions.append([undone]))
            self.ledger.record([old.was])
            found.append(old.was)
        self.stale = True
        return found

    def finish(self) -> str:
        self.stale = False
        self.finished += 1
        return "written"


def opening(out: Path, root: Path, readonly: bool = False) -> Opening:
    """How the parts of a small run are opened."""
    mender = None if readonly else (lambda: FakeMender(out))
    return Opening(out, lambda: FakeTwin(out, root), mender, flags_of, "the tester")


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Browser:
    """Sends requests with the headers that a browser sends."""

    def __init__(self, port: int) -> None:
        self.port, self.host, self.cookie = port, f"127.0.0.1:{port}", ""

    def open(self, address: str) -> Reply:
        """Open the printed address, and keep the cookie."""
        reply = self.get(address[address.index("/", 8) :])
        self.cookie = reply.headers.get("set-cookie", "").partition(";")[0]
        return reply

    def get(self, path: str, **headers: str) -> Reply:
        return self.send("GET", path, None, **headers)

    def post(self, path: str, content: Any, **headers: str) -> Reply:
        given = {"Content-Type": "application/json", "Origin": f"http://{self.host}", **headers}
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        return self.send("POST", path, body, **given)

    def send(self, method: str, path: str, body: Any, **headers: str) -> Reply:
        every = {"Host": self.host, "Cookie": self.cookie, **headers}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path, body, {name: value for name, value in every.items() if value})
            reply = connection.getresponse()
            return Reply(reply.status, {n.lower(): v for n, v in reply.getheaders()}, reply.read())


def runs(bits: Bool) -> str:
    """The runs of a mask, made in another way than the server's."""
    found, value = [0], False
    for bit in bits.ravel().tolist():
        if bit != value:
            found.append(0)
            value = bit
        found[-1] += 1
    return base64.b64encode(np.array(found, "<u4").tobytes()).decode()


def bits_of(text: str, size: Sequence[int]) -> Bool:
    """The mask of runs."""
    lengths = np.frombuffer(base64.b64decode(text), "<u4")
    return np.concatenate([np.full(n, k % 2 == 1) for k, n in enumerate(lengths)]).reshape(size)


@contextlib.contextmanager
def served(review: Any) -> Iterator[tuple[Any, Browser]]:
    """Serve a review; yield the server, and a browser that has its cookie."""
    from fgfast.review.server import Server

    with Server(review, "127.0.0.1", 0) as server:
        browser = Browser(server.port)
        assert browser.open(server.new_address()).status == 303
        yield server, browser


if importlib.util.find_spec("fgfast.pipeline.mending") is None:  # until it is there
    sys.modules["fgfast.pipeline.mending"] = types.ModuleType("fgfast.pipeline.mending")
    sys.modules["fgfast.pipeline.mending"].Change = Change  # type: ignore[attr-defined]
