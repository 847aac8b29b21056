"""A review over a small run, and a client that speaks with its server as a browser does."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import math
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from layouts import cub

import fgfast
from fgfast.config import Settings
from fgfast.pipeline.mending import Mender
from fgfast.pipeline.twin import Twin
from fgfast.records import Bool, Outcome
from fgfast.review.opening import Opening


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


def flags_of(o: Outcome) -> Sequence[FakeFlag]:
    return [FakeFlag(name, number, math.inf, f"It is {name}.") for name, number in o.numbers.items()]


def no_model(settings: Any) -> None:
    return None


def opening(out: Path, root: Path, readonly: bool = False, mender: Any = None, model: Any = no_model) -> Opening:
    """How the parts of a small run are opened."""
    open_mender = mender or (lambda: Mender.open(out, root))
    return Opening(out, lambda: Twin.open(out, root), None if readonly else open_mender, flags_of, model, "the tester")


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


def add_class_with_an_odd_one(out: Path, label: str = "003.Tern") -> str:
    """Add nine results to a run's ledger, all alike but the last, whose mask is a speck; return its key."""
    with sqlite3.connect(out / "fgfast" / "ledger.sqlite") as db:
        (first,) = db.execute("SELECT min(id) FROM outcomes WHERE twin IS NOT NULL").fetchone()
        columns = [row[1] for row in db.execute("PRAGMA table_info(outcomes)")]
        row = dict(zip(columns, db.execute("SELECT * FROM outcomes WHERE id = ?", (first,)).fetchone(), strict=True))
        for n in range(100, 109):
            key = f"images/{label}/Tern_{n}.jpg"
            db.execute("INSERT INTO samples VALUES (?, ?, ?, ?, 'train')", (n, key, n, label))
            changed = {**row, "id": n, "twin": f"{key}.png", "area": 300 + n if n < 108 else 2}
            db.execute(f"INSERT INTO outcomes VALUES ({','.join('?' * len(row))})", list(changed.values()))
    db.close()
    return key
