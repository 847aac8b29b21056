"""Reviews a run over HTTP, as the page does, and times what a person waits for; lists of many entries, too."""

from __future__ import annotations

import base64
import http.client
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil

from fgfast import ops, processes
from fgfast.bench.result import Result, Row, envelope, save
from fgfast.config import Settings
from fgfast.files import FileStamp
from fgfast.io.ledger import Ledger
from fgfast.pipeline.plan import make_plan
from fgfast.pipeline.run import run
from fgfast.records import Outcome, Sample, Size
from fgfast.terminal import say
from fgfast.writing import Target, make_folder, scratch_folder, write_file

# Of a hundred doubtful ones, by the issue: accepted, mended by box or points, mended by brush.
_ACCEPTED, _CLICKED, _BRUSHED = 70, 20, 10
_SESSION = _ACCEPTED + _CLICKED + _BRUSHED
# What the page asks for: longer sides of thumbnails and of the large image, and the cards of a first screen.
_THUMB, _LARGE, _FIRST = 320, 2048, 48
_PHOTOS = Path(__file__).resolve().parents[2] / "shared" / "photos" / "CUB_200_2011" / "images"
_NUMBERS = ("box gap", "fill", "outside the box", "straight cut", "border contact", "parts", "holes", "weak outline")
_MEGABYTE = 1 << 20
_NO_INPUT = -3  # subprocess.DEVNULL


class Client:
    """Speaks with a server as a browser does, by one connection that stays open."""

    def __init__(self, address: str) -> None:
        found = re.fullmatch(r"http://([^/]+)(/.*)", address)
        assert found is not None
        self._host, self._connection = found[1], http.client.HTTPConnection(found[1], timeout=120)
        self._cookie = ""
        _, headers, _ = self._send("GET", found[2])
        self._cookie = headers["set-cookie"].partition(";")[0]

    def close(self) -> None:
        self._connection.close()

    def get(self, path: str) -> bytes:
        return self._checked("GET", path)

    def json(self, path: str) -> Any:
        return json.loads(self.get(path))

    def post(self, path: str, content: Any) -> Any:
        return json.loads(self._checked("POST", path, json.dumps(content).encode()))

    def _checked(self, method: str, path: str, body: bytes | None = None) -> bytes:
        status, _, found = self._send(method, path, body)
        if status != 200:
            raise click.ClickException(f"{method} {path} is answered with {status}: {found.decode()}")
        return found

    def _send(self, method: str, path: str, body: bytes | None = None) -> tuple[int, dict[str, str], bytes]:
        headers = {"Cookie": self._cookie, "Origin": f"http://{self._host}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        self._connection.request(method, path, body, headers)
        reply = self._connection.getresponse()
        return reply.status, {n.lower(): v for n, v in reply.getheaders()}, reply.read()


@contextmanager
def serving(out: Path, *options: str) -> Iterator[tuple[Client, psutil.Process, float]]:
    """Start `fgfast review`; yield a client of it, its process, and the seconds until it printed its address."""
    words = ["review", str(out), "--no-open", *options]
    begun = time.perf_counter()
    process = processes.start_python(f"from fgfast.cli import main; main({words!r})", stdin=_NO_INPUT, stderr=None)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.search(rb"Open (\S+)", line):
                seconds = time.perf_counter() - begun
                with closing(Client(found[1].decode())) as client:
                    yield client, psutil.Process(process.pid), seconds
                break
        else:
            raise click.ClickException("the server ended before it printed an address")
    finally:
        process.terminate()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def session(folder: Path, segmenter: str, photos: Path) -> tuple[list[Row], str]:
    """Review a hundred results of real photographs; return times in milliseconds, and the name of what took clicks."""
    files = sorted(photos.rglob("*.jpg"))
    if not files:
        raise click.ClickException(f"there are no photographs in {photos}: name a folder of them with --photos")
    source, out = folder / "photographs", folder / "out"
    for n in range(_SESSION + 10):
        target = source / f"class {n % 5}" / f"{n:03d}.jpg"
        make_folder(Target.of(folder, target.parent))
        write_file(Target.of(folder, target), files[n % len(files)].read_bytes(), sync=False)
    run(make_plan(source, out, settings=Settings(segmenter=segmenter)))
    with serving(out) as (client, _, _):
        ids = _numbers(client.json("/api/queue?order=doubt"))[:_SESSION]
        kinds = ["accept"] * _ACCEPTED + ["click"] * _CLICKED + ["brush"] * _BRUSHED
        np.random.default_rng(0).shuffle(kinds)
        times: dict[str, list[float]] = {"shown": [], "durable": [], "click": []}
        _ready(client, ids)
        for number, kind in zip(ids, kinds, strict=True):
            item = _timed(times["shown"], lambda number=number: _shown(client, number))  # type: ignore[misc]
            change = {"id": number, "seen": item["revision"], "verdict": "accept", "how": "accept"}
            if kind == "click":
                found = _timed(times["click"], lambda item=item: _click(client, item))  # type: ignore[misc]
                change |= {"verdict": "mask", "how": "box", "runs": found["masks"][0]["runs"], "cause": "wrong subject"}
            elif kind == "brush":
                mask = client.json(f"/api/items/{number}/mask")
                grown = {"runs": mask["runs"], "op": "grow", "by": 3}
                runs = client.post(f"/api/items/{number}/refine", grown)["runs"]
                change |= {"verdict": "mask", "how": "brush", "runs": runs, "cause": "subject incomplete"}
            results = _timed(times["durable"], lambda change=change: client.post("/api/decide", {"changes": [change]}))  # type: ignore[misc]
            if "number" not in results["results"][0]:
                raise click.ClickException(f"not decided: {results}")
        name = client.json("/api/state")["model"]["name"]
        finished = _timed([], lambda: client.post("/api/finish", {}))
        assert finished["counts"]
    titles = {
        "shown": "next entry shown, not fetched ahead",
        "durable": "decision durable",
        "click": f"click to mask, {name}",
    }
    return [row for kind, found in times.items() for row in _rows(titles[kind], found)], name


def _ready(client: Client, ids: Sequence[int]) -> None:
    """Wait for the model, as the page does, and let it look at what comes."""
    while not (model := client.json("/api/state")["model"])["ready"]:
        time.sleep(0.05)
    if "embed" in model["can"]:
        client.post("/api/prepare", {"ids": list(ids)})


def _shown(client: Client, number: int) -> dict[str, Any]:
    """Ask for all that the page shows of an entry."""
    (item,) = client.json(f"/api/items?ids={number}")
    client.get(f"/api/items/{number}/image?kind=source&side={_LARGE}&v={item['stamp']}")
    if item["status"] in ("done", "flagged"):
        client.get(f"/api/items/{number}/mask?v={item['stamp']}")
    return dict(item)


def _click(client: Client, item: dict[str, Any]) -> Any:
    height, width = item["size"]
    box = [0.2 * width, 0.2 * height, 0.8 * width, 0.8 * height]
    asked: dict[str, Any] = {"box": box}
    if item["id"] % 2:
        asked["points"] = [[width / 2, height / 2, 1], [2, 2, 0]]
    return client.post(f"/api/items/{item['id']}/propose", asked)


def many(folder: Path, count: int, photos: Path) -> list[Row]:
    """List many entries: time until the server listens, until the first images are there, and its memory."""
    out, files = folder / "out", sorted(photos.rglob("*.jpg"))
    first = _made_ledger(out, folder / "images", count)
    for n, key in enumerate(first):
        target = Target.of(folder, folder / "images" / key)
        make_folder(Target.of(folder, target.path.parent))
        write_file(target, files[n % len(files)].read_bytes(), sync=False)
    with serving(out, "--read-only") as (client, process, listening):
        begun = time.perf_counter()
        client.json("/api/state")
        ids = _numbers(client.json("/api/queue?order=doubt"))
        if len(ids) != count:
            raise click.ClickException(f"{len(ids)} of {count} entries are listed")
        items = client.json("/api/items?ids=" + ",".join(map(str, ids[:_FIRST])))
        for item in items:
            client.get(f"/api/items/{item['id']}/image?kind=outline&side={_THUMB}&v={item['stamp']}")
        images = time.perf_counter() - begun
        title = f"{count:,} entries"
        return [
            Row(f"{title}: command to address", listening, "s", "lower"),
            Row(f"{title}: page to {_FIRST} images", images, "s", "lower"),
            Row(f"{title}: memory", process.memory_info().rss / _MEGABYTE, "MiB", "lower"),
        ]


def _made_ledger(out: Path, root: Path, count: int) -> list[str]:
    """Make the ledger of a run that never was; return the keys of the most doubtful entries."""
    make_folder(Target(out / "fgfast"))
    rng, doubts = np.random.default_rng(0), np.random.default_rng(1).beta(1, 8, count)
    y, x = np.mgrid[:375, :500]
    rle = ops.rle_encode(((y - 180) / 100) ** 2 + ((x - 240) / 120) ** 2 + 0.1 * np.sin(x / 5) < 1)
    keys = [f"class {n % 200:03d}/image {n:07d}.jpg" for n in range(count)]
    box, size = np.array([20, 30, 400, 300], np.float32), Size(375, 500)
    with Ledger(out / "fgfast" / "ledger.sqlite") as ledger:
        source = {"dataset": "folder", "root": str(root)}
        ledger.set_meta({"fingerprint": {"dataset": "folder"}, "folder": "images", "source": source})
        for start in range(0, count, 20_000):
            places = range(start, min(count, start + 20_000))
            ledger.register((n, Sample(keys[n], Path(keys[n]), keys[n][:9], "train")) for n in places)
            numbers = rng.random((len(places), len(_NUMBERS))).tolist()
            ledger.record(
                Outcome(
                    key=keys[n],
                    status="flagged" if doubts[n] > 0.4 else "done",
                    stage="write",
                    twin=keys[n],
                    size=size,
                    twin_size=size,
                    box=box,
                    box_reason="annotated box",
                    rle=rle,
                    doubt=float(doubts[n]),
                    numbers=dict(zip(_NUMBERS, numbers[n - start], strict=True)),
                    source=FileStamp(1, 1, bytes(32)),
                )
                for n in places
            )
    return [keys[n] for n in np.argsort(-doubts.astype(np.float32), kind="stable")[:_FIRST]]


def _numbers(queue: Any) -> list[int]:
    return [int(n) for n in np.frombuffer(base64.b64decode(queue["ids"]), "<u4")]


def _timed(times: list[float], call: Callable[[], Any]) -> Any:
    begun = time.perf_counter()
    found = call()
    times.append(1000 * (time.perf_counter() - begun))
    return found


def _rows(title: str, times: Sequence[float]) -> list[Row]:
    return [Row(f"{title}, p{share}", float(np.percentile(times, share)), "ms", "lower") for share in (50, 95)]


def measure(*, segmenters: Sequence[str], counts: Sequence[int], photos: Path, folder: Path) -> Result:
    """Time sessions with each segmenter, and lists of each length."""
    rows: list[Row] = []
    notes = [f"{_ACCEPTED} accepted, {_CLICKED} by box or points, {_BRUSHED} by brush; photographs of {photos.name}"]
    for segmenter in segmenters:
        with scratch_folder("fgfast-review-", folder) as scratch:
            found, name = session(scratch, segmenter, photos)
            rows += found
            notes.append(f"run with {segmenter}; clicks by {name}")
    for count in counts:
        with scratch_folder("fgfast-review-", folder) as scratch:
            rows += many(scratch, count, photos)
    return envelope("review_session", rows, title="A review over HTTP", rounds=1, notes=notes)


@click.command()
@click.option("--segmenter", "segmenters", multiple=True, default=["grabcut"], help="Makes the masks.")
@click.option("--entries", "counts", multiple=True, type=int, default=[12_000, 1_000_000], help="Lists so many.")
@click.option("--photos", type=click.Path(path_type=Path), default=_PHOTOS, help="Names the folder of photographs.")
@click.option("--dir", "folder", type=click.Path(path_type=Path), default=".", help="Names the folder to work in.")
@click.option("--save", "saves", is_flag=True, help="Also writes the result into bench/results.")
def main(segmenters: Sequence[str], counts: Sequence[int], photos: Path, folder: Path, saves: bool) -> None:
    """Review a run over HTTP, as the page does, and time what a person waits for."""
    result = measure(segmenters=segmenters, counts=counts, photos=photos, folder=folder)
    say(json.dumps(result, indent=2))
    if saves:
        say(str(save(result)))


if __name__ == "__main__":
    main()
