"""report.html: one page that shows the results of a run and needs no network.

The ledger is read once, as a stream; the page's content fits in a few megabytes whatever the ledger's length. This
module chooses the content and passes it as one block of JSON to the template, report.html, which lays it out. Names,
classes and messages may be hostile: every "<" in that block is escaped, the page's script shows them as text only, and
the page's security policy names the script by its hash, so that no other script runs.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import importlib.resources
import io
import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from html import escape
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fgfast.data_paths import DataPath
from fgfast.files import open_regular
from fgfast.image_formats import open_image
from fgfast.io.decision_rows import Decision
from fgfast.io.decode import FORMATS, decode, read_bytes
from fgfast.io.summary import FAILED_ROWS, Summary, share_of
from fgfast.io.warned import collected
from fgfast.ops.doubt import NAMES as DOUBT_NAMES
from fgfast.records import STATUSES, Outcome, Sample, Status
from fgfast.writing import Target, write_file

if TYPE_CHECKING:
    from PIL import Image

THUMB_SIDE = 240
"""Longer side of a thumbnail in pixels; it shrinks where the gallery has more than `THUMB_COUNT` images."""
THUMB_COUNT = 240
THUMB_BYTES = 5_000_000
"""Bytes of all thumbnails together: 6.7 MB as base64, so that the page stays below 8 MB."""
THUMB_QUALITIES = (80, 60, 35, 10)
CLASS_ROWS = 1000
"""Most rows in the table of classes; the page shows the total, the ledger has the rest."""


def write_page(
    target: Target,
    summary: Summary,
    *,
    facts: Mapping[str, Any],
    total: int,
    samples: Mapping[str, Sample],
    twin: Path,
    turn_exif: bool,
    decided: Mapping[str, Decision] | None = None,
) -> None:
    """Write the page.

    Args:
        target: the file, OUT/fgfast/report.html.
        summary: the summary of the ledger.
        facts: the content of run.json; the page omits missing entries.
        total: number of samples that the run selected.
        samples: key -> sample.
        twin: the folder of the twin.
        turn_exif: whether the EXIF orientation is applied.
        decided: key -> what a person decided.
    """
    chosen = summary.chosen()
    draw = partial(thumbnails, samples=samples, twin=twin, turn_exif=turn_exif, count=len(chosen))
    with ThreadPoolExecutor(2) as pool:
        pairs = list(pool.map(draw, chosen))
    folder = os.path.relpath(twin, target.path.parent).replace(os.sep, "/")
    content = {
        **overview(facts, summary.counts, total),
        **charts(summary),
        **decisions(decided or {}),
        "gallery": [{**entry(o, samples), **card(o, folder), **pair} for o, pair in zip(chosen, pairs, strict=True)],
        "unwritten": [
            {**entry(o, samples), "stage": o.stage, "detail": o.detail}
            for o in (summary.unwritten["failed"] + summary.unwritten["skipped"])[:FAILED_ROWS]
        ],
        "classes": class_rows(summary.classes),
        "class_count": len(summary.classes),
        "facts": [{"name": name, "rows": list(fact_rows(value))} for name, value in facts.items()],
    }
    write_file(target, page(content))


def page(content: Mapping[str, Any]) -> bytes:
    """Fill the template with the content."""
    template = importlib.resources.files("fgfast.io").joinpath("report.html").read_text(encoding="utf-8")
    script = template.split("<script>")[1].split("</script>")[0]
    parts = {
        "title": escape(content["title"]),
        "script": "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        # "<" could end the block or begin a comment in it; JSON allows \u.... for any character.
        "content": json.dumps(visible(content), allow_nan=False).replace("<", "\\u003c"),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template).encode()


def visible(value: Any) -> Any:
    """Make content valid for JSON: bytes that are not UTF-8 become \\udcff, NaN and infinities become words."""
    if isinstance(value, Mapping):
        return {visible(str(key)): visible(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [visible(item) for item in value]
    if value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return re.sub("[\ud800-\udfff]", lambda match: ascii(match[0])[1:-1], str(value))


def overview(facts: Mapping[str, Any], counts: Mapping[Status, int], total: int) -> dict[str, Any]:
    """Return the title, the counts, the warnings, the speed and the line that loads the twin."""
    fingerprint, result = facts.get("fingerprint") or {}, facts.get("result") or {}
    processed, seconds = int(result.get("processed") or 0), result.get("seconds")
    seen = sum(counts.values())
    return {
        "title": visible(str(facts.get("title") or fingerprint.get("dataset") or "data set")),
        "fingerprint": fingerprint,
        "finished": facts.get("finished"),
        "counts": {status: counts.get(status, 0) for status in STATUSES},
        "warnings": list(facts.get("warnings") or ()),
        "total": total,
        "left": max(total - seen, 0),
        "seconds": seconds,
        "rate": processed / seconds if seconds else None,
        "load": result.get("load"),
        "expansion": fingerprint.get("expansion") or "",
        "run": str((facts.get("source") or {}).get("run") or ""),
    }


def charts(summary: Summary) -> dict[str, Any]:
    """Return the reasons, the time per stage and the subject's share of the image."""
    shares = summary.some_shares.kept
    return {
        "reasons": {status: counter.most_common(12) for status, counter in summary.reasons.items()},
        "stages": [[s, summary.seconds[s], median(some.kept)] for s, some in summary.some_seconds.items()],
        "shares": summary.shares,
        "median_share": median(shares) if shares else None,
        "doubts": summary.doubts,
        "numbers": sorted((name, bins) for name, bins in summary.numbers.items() if name in DOUBT_NAMES),
        "rules": sorted((name, bins) for name, bins in summary.numbers.items() if name not in DOUBT_NAMES),
    }


def decisions(decided: Mapping[str, Decision]) -> dict[str, Any]:
    """Return [verdict, cause, number of images] of what people decided, as often as each occurs."""
    counted = Counter((d.verdict, d.cause) for d in decided.values())
    return {"decided": [[*kind, n] for kind, n in counted.most_common()]}


def entry(o: Outcome, samples: Mapping[str, Sample]) -> dict[str, Any]:
    """Return the fields that rows and cards share."""
    label, split = (samples[o.key].label, samples[o.key].split) if o.key in samples else ("", "")
    flags = {"reasons": o.reasons, "numbers": dict(o.numbers)}
    return {"name": o.key, "status": o.status, **flags, "class": label, "split": split}


def card(o: Outcome, folder: str) -> dict[str, Any]:
    """Return the fields of a card only. Its box is left, top, width, height in percent of the image."""
    box = None
    if o.box is not None and o.size and all(o.size):
        (height, width), (x0, y0, x1, y1) = o.size, o.box.tolist()
        box = [round(100 * v, 2) for v in (x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height)]
    return {
        "share": share_of(o),
        "box": box,
        "box_reason": o.box_reason,
        "size": o.size and o.size[::-1],  # width, height
        "twin_size": o.twin_size and o.twin_size[::-1],
        "uncropped": o.size == o.twin_size and o.offset == (0, 0),
        "twin": o.twin,
        "link": url(f"{folder}/{o.twin}"),
        "quality": o.quality,
        "doubt": o.doubt,
    }


def class_rows(classes: Mapping[str, Mapping[Status, int]]) -> list[list[Any]]:
    """Return [class, number of each status]; too many classes are cut to those with most flags and failures."""
    names = sorted(classes)
    if len(names) > CLASS_ROWS:
        names.sort(key=lambda name: classes[name].get("done", 0) / sum(classes[name].values()))
    return [[name, *(classes[name].get(s, 0) for s in STATUSES)] for name in sorted(names[:CLASS_ROWS])]


def fact_rows(value: Any, name: str = "") -> Iterator[list[str]]:
    """Flatten nested values to [name, value] rows; dots join the names."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from fact_rows(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (list, tuple)):
        yield [name, "\n".join(str(item) for item in value)]
    else:
        yield [name, "not set" if value is None else str(value)]


def thumbnails(
    o: Outcome, *, samples: Mapping[str, Sample], twin: Path, turn_exif: bool, count: int
) -> dict[str, str | None]:
    """Return the image before and after as data URIs, None for one that cannot be shown."""
    from PIL import Image

    before = after = None
    # Pillow raises many kinds on damaged files; a missing thumbnail must not cost the page.
    with collected(), contextlib.suppress(Exception):
        pixels = decode(read_bytes(samples[o.key].path), o.key, turn_exif).pixels
        before = data_uri(Image.fromarray(pixels), count)
    with collected(), contextlib.suppress(Exception), open_regular(DataPath(str(twin)) / str(o.twin)) as file:
        image = open_image(file, FORMATS)
        after = data_uri(image.convert("RGBA" if image.has_transparency_data else "RGB"), count)
    return {"before": before, "after": after}


def data_uri(image: Image.Image, count: int) -> str:
    """Encode a thumbnail as data URI, small enough for `count` pairs of its size."""
    side = round(THUMB_SIDE * min(1.0, (THUMB_COUNT / count) ** 0.5))
    image.thumbnail((side, side), reducing_gap=3)
    for quality in THUMB_QUALITIES:
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=quality)
        if buffer.tell() <= THUMB_BYTES / (2 * count):
            break
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def url(path: str) -> str:
    """Quote a relative path for a link; names that are not UTF-8 keep their bytes."""
    try:
        return quote(os.fsencode(path))
    except UnicodeEncodeError:
        return quote(path.encode("utf-8", "surrogatepass"))
