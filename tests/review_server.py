"""A server that answers as `fgfast review` does, over drawn images: any number of entries, and faults on demand."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import mimetypes
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
from PIL import Image

from fgfast.records import Bool
from fgfast.review.security import _POLICY

PAGE = Path(__file__).parents[1] / "fgfast" / "review" / "page"
CAUSES = ["subject not recognised", "wrong subject", "background left in", "subject incomplete"]
SENTENCES = {
    "weak outline": "Half of the outline follows no edge of the image.",
    "straight cut": "A side of the subject is cut off along a side of the box.",
    "alike colours": "Subject and surroundings have much the same colours.",
}


class FakeReview:
    """What the server knows. Attributes that tests set: `size`, `gone`, `full`, `names`, `missing`, `readonly`,
    `flagged`, `slow`."""

    def __init__(self, count: int = 60, size: tuple[int, int] = (240, 320)) -> None:
        self.count, self.size = count, size
        self.sizes: dict[int, tuple[int, int]] = {}
        self.names: dict[int, str] = {}
        self.missing: set[int] = set()
        self.slow: dict[int, float] = {}  # seconds that an entry's images take
        self.gone = self.full = self.readonly = False
        self.flagged: int | None = None  # of the entries, the first; None for all
        self.later: set[int] = set()
        self.decisions: list[dict[str, Any]] = []
        self.masks: dict[int, Bool] = {}
        self.asked: list[str] = []
        self.proposed: list[dict[str, Any]] = []
        self.doubts = np.sort(np.random.default_rng(0).beta(0.3, 6, count))[::-1]
        self.kept: dict[tuple[int, str, int], bytes] = {}
        self.lock = threading.RLock()

    def size_of(self, number: int) -> tuple[int, int]:
        return self.sizes.get(number, self.size)

    def revision(self, number: int) -> int:
        return max((d["number"] for d in self.decisions if d["id"] == number), default=0)

    def in_force(self, number: int) -> dict[str, Any] | None:
        undone = {d["undoes"] for d in self.decisions}
        mine = [d for d in self.decisions if d["id"] == number and d["verdict"] != "undo" and d["number"] not in undone]
        return mine[-1] if mine else None

    def mask(self, number: int) -> Bool:
        now = self.in_force(number)
        if now is not None and now["number"] in self.masks:
            return self.masks[now["number"]]
        height, width = self.size_of(number)
        return ellipse((height, width), (width * 0.5, height * 0.5, width * 0.28, height * 0.3))

    def item(self, number: int) -> dict[str, Any]:
        height, width = self.size_of(number)
        doubt = float(self.doubts[number - 1])
        flags = [
            {"name": n, "number": 0.6, "share": 3 - k, "sentence": s} for k, (n, s) in enumerate(SENTENCES.items())
        ]
        missing = number in self.missing
        return {
            "id": number,
            "key": self.names.get(number, f"birds/class {number % 7}/bird_{number:05d}.jpg"),
            "class": f"class {number % 7}",
            "split": "train" if number % 3 else "test",
            "status": "flagged",
            "doubt": doubt,
            "flags": flags[: number % 4],
            "reasons": [],
            "size": [height, width],
            "twin_size": [height, width],
            "offset": [0, 0],
            "box_reason": "annotated",
            "box_score": 0.9,
            "box": [width * 0.2, height * 0.18, width * 0.8, height * 0.82],
            "box_name": "bird",
            "others": [[0, 0, width / 2, height / 2, 0.41, "bird"]],
            "revision": self.revision(number),
            "decision": self.in_force(number),
            "later": number in self.later,
            "detail": "",
            "problem": "The source image is missing: give --root." if missing else "",
            "stamp": f"s{self.revision(number)}",
        }

    def state(self) -> dict[str, Any]:
        decided = len({d["id"] for d in self.decisions if self.in_force(d["id"])})
        counts = np.histogram(np.log10(self.doubts.clip(1e-4)), 20, (-4, 0))[0].tolist()
        left = max(0, (self.count if self.flagged is None else self.flagged) - decided)
        return {
            "title": "Drawn birds",
            "version": "0",
            "who": "the tester",
            "total": self.count,
            "decided": decided,
            "later": len(self.later),
            "left": left,
            "minutes": left / 20,
            "readonly": self.readonly,
            "stale": decided > 0,
            "finishing": False,
            "last": len(self.decisions),
            "causes": CAUSES,
            "model": {"name": "fake", "can": ["box", "points", "strokes"], "ready": True},
            "classes": [f"class {k}" for k in range(7)],
            "splits": ["train", "test"],
            "statuses": {"flagged": self.count},
            "histogram": counts,
            "flags_known": self.count,
            "flags": [{"name": n, "sentence": s, "count": self.count // 4} for n, s in SENTENCES.items()],
        }

    def queue(self, q: dict[str, str]) -> dict[str, Any]:
        every = np.arange(1, self.count + 1)
        keep = np.ones(self.count, np.bool_)
        if q.get("class"):
            keep &= every % 7 == int(q["class"][6:])
        if q.get("split"):
            keep &= (every % 3 != 0) == (q["split"] == "train")
        if q.get("q"):
            keep &= np.array([q["q"] in self.item(int(n))["key"] for n in every])
        if q.get("decided"):
            done = {d["id"] for d in self.decisions if self.in_force(d["id"])}
            known = self.later if q["decided"] == "later" else done
            keep &= np.isin(every, list(known)) != (q["decided"] == "no")
        ids = every[keep].astype("<u4")
        doubts = (1 + 254 * (1 + np.log10(self.doubts[keep].clip(1e-4)) / 4)).astype(np.uint8)
        return {"count": len(ids), "ids": b64(ids.tobytes()), "doubts": b64(doubts.tobytes())}

    def decide(self, changes: list[dict[str, Any]]) -> list[dict[str, Any]]:
        results = []
        for change in changes:
            number, now = change["id"], self.in_force(change["id"])
            height, width = self.size_of(number)
            if change["seen"] != self.revision(number):
                theirs = runs_of(self.mask(number))
                conflict = {"seen": change["seen"], "now": self.decisions[self.revision(number) - 1]}
                found = {**conflict, "size": [height, width], "mine": change.get("runs"), "theirs": theirs}
                results.append({"id": number, "item": self.item(number), "conflict": found})
                continue
            made = self.add(number, change["verdict"], change["how"], change["cause"], change["note"], change["seen"])
            if change.get("runs"):
                self.masks[made] = decode(change["runs"], (height, width))
            elif now is not None and now["number"] in self.masks:
                self.masks[made] = self.masks[now["number"]]
            results.append({"id": number, "number": made, "item": self.item(number)})
        return results

    def add(
        self, number: int, verdict: str, how: str, cause: str = "", note: str = "", seen: int = 0, **more: Any
    ) -> int:
        made = len(self.decisions) + 1
        stamp = {"who": more.get("who", "the tester"), "when": "2026-01-02T03:04:05+00:00"}
        about = {"verdict": verdict, "how": how, "cause": cause, "note": note, "seen": seen, **stamp}
        self.decisions.append({"number": made, "id": number, "undoes": more.get("undoes", 0), **about})
        return made

    def undo(self, numbers: list[int]) -> list[dict[str, Any]]:
        results = []
        for one in numbers:
            number = self.decisions[one - 1]["id"]
            made = self.add(number, "undo", "undo", undoes=one)
            results.append({"id": number, "number": made, "item": self.item(number)})
        return results

    def propose(self, number: int, asked: dict[str, Any]) -> dict[str, Any]:
        height, width = self.size_of(number)
        self.proposed.append(asked)
        where = (width / 2, height / 2, width / 4, height / 4)
        if asked.get("box"):
            x0, y0, x1, y1 = asked["box"]
            where = ((x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0) / 2, (y1 - y0) / 2)
        if asked.get("points"):
            x, y, _ = asked["points"][-1]
            where = (x, y, width / 8, height / 8)
        masks = [ellipse((height, width), (*where[:2], where[2] * k, where[3] * k)) for k in (1, 0.6, 1.5)]
        found = [{"runs": runs_of(m), "score": s} for m, s in zip(masks, (0.95, 0.8, 0.6), strict=True)]
        return {"size": [height, width], "masks": found, "previous": "cA==", "ms": 1}

    def refine(self, number: int, asked: dict[str, Any]) -> dict[str, Any]:
        height, width = self.size_of(number)
        bits = decode(asked["runs"], (height, width))
        if asked["op"] == "grow":
            bits[1:] |= bits[:-1].copy()
        if asked["op"] == "shrink":
            bits[1:] &= bits[:-1].copy()
        return {"size": [height, width], "runs": runs_of(bits)}

    def image(self, number: int, kind: str, side: int) -> bytes | None:
        if kind == "source" and number in self.missing:
            return None
        plain = number not in self.sizes and self.in_force(number) is None
        if not plain:
            return self._drawn(number, kind, side)
        # Entries that nobody changed have eight images, so that drawing does not slow the browser down.
        name = (number % 8, kind, side)
        if name not in self.kept:
            self.kept[name] = self._drawn(number, kind, side)
        return self.kept[name]

    def _drawn(self, number: int, kind: str, side: int) -> bytes:
        tone = 25 * (number % 8)
        height, width = self.size_of(number)
        by = min(1.0, side / max(height, width))
        h, w = max(1, round(height * by)), max(1, round(width * by))
        y, x = np.mgrid[:h, :w]
        pixels = np.stack([60 + 120 * y // h, 90 + 60 * x // w, np.full((h, w), 40 + tone)], -1).astype(np.uint8)
        rows, columns = np.arange(h) * height // h, np.arange(w) * width // w
        bits = self.mask(number)[rows][:, columns]
        subject = ellipse((h, w), (w * 0.5, h * 0.5, w * 0.25, h * 0.27))
        pixels[subject] = (230, 190 - tone // 2, 60)
        if kind == "result":
            pixels[~bits] = 255
        if kind == "outline":
            edge = bits & ~(np.roll(bits, 1, 0) & np.roll(bits, -1, 0) & np.roll(bits, 1, 1) & np.roll(bits, -1, 1))
            pixels[edge] = (255, 45, 146)
        kept = io.BytesIO()
        Image.fromarray(pixels).save(kept, "PNG", compress_level=1)
        return kept.getvalue()


def ellipse(size: tuple[int, int], where: tuple[float, float, float, float]) -> Bool:
    y, x = np.ogrid[: size[0], : size[1]]
    cx, cy, rx, ry = where
    return ((x + 0.5 - cx) / max(rx, 0.5)) ** 2 + ((y + 0.5 - cy) / max(ry, 0.5)) ** 2 <= 1


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def runs_of(bits: Bool) -> str:
    flat = np.concatenate([[False], bits.ravel(), [not bits.ravel()[-1]]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    return b64(np.diff(np.concatenate([[0], edges])).astype("<u4").tobytes())


def decode(text: str, size: tuple[int, int]) -> Bool:
    lengths = np.frombuffer(base64.b64decode(text), "<u4")
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(size)


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A tab that was closed is no error."""


class FakeServer:
    """Serves a FakeReview; a context manager."""

    def __init__(self, review: FakeReview) -> None:
        self.review = review

        class Handler(_Handler):
            known = review

        self._server = _Quiet(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}/"

    def __enter__(self) -> FakeServer:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    known: FakeReview
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["content-length"])))

    def _answer(self, body: bytes) -> None:
        review = self.known
        if review.gone:
            self.close_connection = True
            return
        parts = urlsplit(self.path)
        review.asked.append(parts.path)
        q = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if not parts.path.startswith("/api"):
            name = "index.html" if parts.path == "/" else parts.path.removeprefix("/static/")
            self._send((PAGE / name).read_bytes(), mimetypes.guess_type(name)[0] or "text/plain")
            return
        number = int(parts.path.split("/")[3]) if parts.path.startswith("/api/items/") else 0
        if parts.path.endswith("/image"):
            time.sleep(review.slow.get(number, 0))
            data = review.image(number, q["kind"], int(q["side"]))
            self._send(data or b"{}", "image/png" if data else "application/json", 200 if data else 404)
            return
        with review.lock:
            status, made = self._made(parts.path.rsplit("/", 1)[1], number, q, json.loads(body or b"{}"))
        self._send(json.dumps(made).encode(), "application/json", status)

    def _made(self, name: str, number: int, q: dict[str, str], asked: dict[str, Any]) -> tuple[int, Any]:
        review = self.known
        if name == "decide" and review.full:
            return 507, {"error": "the disk is full"}
        if name == "items":
            return 200, [review.item(int(n)) for n in q["ids"].split(",")]
        if name == "mask":
            return 200, {"size": review.size_of(number), "runs": runs_of(review.mask(number))}
        if name == "history":
            return 200, [d for d in reversed(review.decisions) if d["id"] == number]
        if name == "changes":
            since = int(q["since"])
            return 200, {"last": len(review.decisions), "ids": [d["id"] for d in review.decisions[since:]]}
        if name == "later":
            (review.later.update if asked["later"] else review.later.difference_update)(asked["ids"])
        made = {
            "state": lambda: review.state(),
            "queue": lambda: review.queue(q),
            "propose": lambda: review.propose(number, asked),
            "refine": lambda: review.refine(number, asked),
            "decide": lambda: {"results": review.decide(asked["changes"])},
            "undo": lambda: {"results": review.undo(asked["numbers"])},
        }
        return 200, made.get(name, dict)()

    def _send(self, data: bytes, kind: str, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.send_header("content-security-policy", _POLICY)
        self.send_header("cache-control", "private, max-age=3600" if kind == "image/png" else "no-store")
        self.end_headers()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # a tab that was closed
            self.wfile.write(data)
