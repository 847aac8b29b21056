"""The report in a real browser: its controls work, and it makes no network requests.

A copy of the page gets one more script, which clicks and writes its findings into the document; Chromium prints the
document.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from reports import write_report

from fgfast.records import Outcome, Sample, Status

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome here: apt-get install chromium"
)

HOSTILE = "z/<img src=x onerror=\"document.title='owned'\"></script><script>document.title='owned'</script>.png"
# key, class, status, reasons, subject's pixels of 1200
ROWS: list[tuple[str, str, Status, tuple[str, ...], int]] = [
    ("b/10.png", "wren", "done", (), 600),
    ("b/9.png", "wren", "done", (), 60),
    ("a/3.png", "finch", "flagged", ("fragments", "full"), 1190),
    ("c/1.png", "auk", "flagged", ("fragments",), 300),
    ("a/4.png", "finch", "failed", ("truncated",), 0),
    (HOSTILE, "auk", "done", (), 480),
]


def run_of_six(root: Path) -> tuple[list[Outcome], dict[str, Sample]]:
    outcomes, samples = [], {}
    for n, (key, label, status, reasons, area) in enumerate(ROWS):
        source, twin = root / f"{n}.png", f"{n}.png"
        samples[key] = Sample(key, source, label, "train")
        if status == "failed":
            outcomes.append(Outcome(key, status, "decode", reasons, "it ends too early"))
            continue
        Image.new("RGB", (40, 30), (40 * n, 90, 160)).save(source)
        Image.new("RGBA", (40, 30), (40 * n, 90, 160, 128)).save(root / "twin" / twin)
        box = np.array([4, 3, 24, 18], np.float32)
        size = (40, 30) if n else (20, 30)  # the first is cropped
        outcomes.append(
            Outcome(
                *(key, status, "write", reasons, "", twin, (40, 30), size, (0, 0), box, "annotated"),
                area=area,
                numbers={"fragments": 0.4149, "full": 0.9917} if key == "a/3.png" else {},
            )
        )
    return outcomes, samples


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("run")
    (root / "twin").mkdir()
    outcomes, samples = run_of_six(root)
    path = root / "fgfast" / "report.html"
    facts: dict[str, Any] = {"fingerprint": {"dataset": "birds", "detector": "annotations"}, "result": {"seconds": 2.0}}
    facts["warnings"] = ["boxes are <b>guesses</b>"]
    write_report(
        path,
        facts=facts,
        total=8,
        outcomes=lambda statuses: (o for o in outcomes if o.status in statuses),
        samples=samples,
        twin=root / "twin",
        turn_exif=False,
    )
    return path


def dump(path: Path, profile: Path) -> str:
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += [f"--user-data-dir={profile}", "--virtual-time-budget=5000", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


WATCH = """<script>
  const seen = [];
  addEventListener("securitypolicyviolation", event => seen.push("blocked " + event.blockedURI));
  addEventListener("error", event => seen.push("error " + event.message));
</script>"""

DRIVE = """<script>{
  const all = selector => [...document.querySelectorAll(selector)];
  const named = (selector, text) => all(selector).find(element => element.textContent.startsWith(text));
  const shown = () => all("#cards > .card").filter(card => !card.hidden).map(card => card.dataset.name);
  const set = (id, value) => {
    at(id).value = value;
    at(id).dispatchEvent(new Event(id === "search" ? "input" : "change"));
  };
  const press = key =>
    document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  const large = () => at("large").open && at("large-name").textContent;
  const found = {};
  const steps = async () => { %s };
  steps().catch(error => { found.error = String(error); }).then(() => {
    found.seen = seen;
    found.requests = performance.getEntriesByType("resource").map(entry => entry.name)
      .filter(name => !name.startsWith("data:"));
    const result = document.createElement("pre");
    result.id = "result";
    result.textContent = btoa(unescape(encodeURIComponent(JSON.stringify(found))));
    document.body.append(result);
  });
}</script>"""


def drive(page: Path, tmp_path: Path, steps: str) -> dict[str, Any]:
    """Run `steps` inside the page and return what they put into `found`. Only the policy's script hash is relaxed."""
    text = page.read_text(encoding="utf-8")
    text, relaxed = re.subn(r"script-src 'sha256-[^']+'", "script-src 'unsafe-inline'", text)
    assert relaxed == 1
    text = text.replace("<style>", WATCH + "<style>", 1).replace("</body>", DRIVE % steps + "</body>")
    copy = page.with_name(f"{tmp_path.name}.html")
    copy.write_text(text, encoding="utf-8")
    match = re.search(r'<pre id="result">([^<]+)</pre>', dump(copy, tmp_path / "profile"))
    assert match, "the script in the page did not come to its end"
    found: dict[str, Any] = json.loads(base64.b64decode(match[1]))
    assert "error" not in found, found["error"]
    assert found["seen"] == []
    assert found["requests"] == []
    return found


def test_the_page_shows_the_run_and_no_foreign_script_runs(page: Path, tmp_path: Path) -> None:
    copy = page.with_name("foreign.html")
    foreign = "<script>document.title = 'owned'</script><img src='x' onerror='document.title=1'></body>"
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", foreign), encoding="utf-8")
    dom = dump(copy, tmp_path)
    assert "<title>birds · fgfast report</title>" in dom
    assert "Stopped early: 2 of 8 images remaining." in dom
    assert "it ends too early" in dom
    assert dom.count('class="card"') == 5
    assert "onerror=" in dom.split('id="cards"')[1].split("</ul>")[0]  # as text
    assert dom.count('<img src="x"') + dom.count("<img src='x'") == 1  # the one added by this test


def test_sorting(page: Path, tmp_path: Path) -> None:
    found = drive(
        page,
        tmp_path,
        """
        found.page = shown();
        for (const order of ["name", "class", "status", "share", "share-down"]) {
          set("sort", order); found[order] = shown();
        }
        """,
    )
    assert found["page"] == ["a/3.png", "c/1.png", "b/10.png", "b/9.png", HOSTILE]
    assert found["name"] == ["a/3.png", "b/9.png", "b/10.png", "c/1.png", HOSTILE]
    assert found["class"] == ["c/1.png", HOSTILE, "a/3.png", "b/10.png", "b/9.png"]
    assert found["status"] == ["b/10.png", "b/9.png", HOSTILE, "a/3.png", "c/1.png"]
    assert found["share"] == ["b/9.png", "c/1.png", HOSTILE, "b/10.png", "a/3.png"]
    assert found["share-down"] == found["share"][::-1]


def test_filtering(page: Path, tmp_path: Path) -> None:
    found = drive(
        page,
        tmp_path,
        """
        set("status", "done"); found.done = shown(); found.words = at("shown").textContent;
        set("class", "=auk"); found.auk = shown();
        at("reset").click(); found.all = shown().length;
        set("flag", "full"); found.full = shown();
        at("reset").click(); set("search", "FINCH frag"); found.search = shown();
        set("search", "nowhere"); found.none = [shown().length, at("none").hidden];
        named("button.bar", "fragments").click();
        found.bar = shown();
        at("boxes").click(); found.box = getComputedStyle(document.querySelector(".prompt")).display;
        """,
    )
    assert found["done"] == ["b/10.png", "b/9.png", HOSTILE]
    assert found["words"] == "3 of 5 shown"
    assert found["auk"] == [HOSTILE]
    assert found["all"] == 5
    assert found["full"] == ["a/3.png"]
    assert found["search"] == ["a/3.png"]
    assert found["none"] == [0, False]
    assert found["bar"] == ["a/3.png", "c/1.png"]
    assert found["box"] == "none"


def test_the_large_view(page: Path, tmp_path: Path) -> None:
    found = drive(
        page,
        tmp_path,
        """
        const opened = document.querySelector("#cards .open");
        opened.focus(); opened.click();
        found.first = large(); found.backAtStart = at("back").disabled;
        found.images = all("#large-images img").length;
        found.link = document.querySelector("#about a").getAttribute("href");
        at("view-slider").click();
        at("slider").value = 30; at("slider").dispatchEvent(new Event("input"));
        found.clip = document.querySelector("#large-images .over").style.clipPath;
        press("ArrowRight"); found.second = large(); found.still = all(".over").length;
        at("forth").click(); found.cropped = [large(), at("views").hidden, all(".over").length];
        at("forth").focus(); at("forth").click(); at("forth").click(); found.last = large();
        found.focus = document.activeElement.id;
        at("close").click(); found.closed = large();
        await new Promise(go => setTimeout(go, 50));
        found.back = document.activeElement.closest(".card").dataset.name;
        """,
    )
    assert found["first"] == "a/3.png"
    assert found["backAtStart"]
    assert found["images"] == 2
    assert found["link"] == "../twin/2.png"
    assert found["clip"] == "inset(0px 70% 0px 0px)"
    assert (found["second"], found["still"]) == ("c/1.png", 1)
    assert found["cropped"] == ["b/10.png", True, 0]
    assert found["last"] == HOSTILE
    assert found["focus"] == "close"
    assert found["closed"] is False
    assert found["back"] == HOSTILE


def test_table_headings_sort(page: Path, tmp_path: Path) -> None:
    found = drive(
        page,
        tmp_path,
        """
        const column = () => all("#classes-table tbody tr").map(row => row.children[0].textContent);
        found.before = column();
        const failed = named("#classes-table th button", "Failed");
        failed.click(); found.failed = column()[0]; found.sort = failed.parentNode.getAttribute("aria-sort");
        document.querySelector("#classes-table th button").click(); found.after = column();
        document.querySelector("#classes-table th button").click(); found.turned = column();
        """,
    )
    assert found["before"] == found["after"] == ["auk", "finch", "wren"]
    assert found["turned"] == ["wren", "finch", "auk"]
    assert (found["failed"], found["sort"]) == ("finch", "descending")


def test_flags_have_their_numbers_and_lists_and_warnings_are_there(page: Path, tmp_path: Path) -> None:
    found = drive(
        page,
        tmp_path,
        """
        const chips = card => [...card.querySelectorAll(".chip")].map(chip => chip.textContent);
        found.chips = all("#cards > .card").map(chips);
        found.links = all("#next a").map(link => [link.closest("li").dataset.status, link.getAttribute("href")]);
        found.warnings = [at("warnings").hidden, at("warnings").textContent];
        document.querySelector("#cards .open").click();
        found.status = at("about").querySelector("dd").textContent;
        """,
    )
    assert found["chips"][:3] == [["fragments · 41 %", "full · 99 %"], ["fragments"], ["done"]]
    assert found["links"] == [["failed", "failed.csv"], ["flagged", "flagged.csv"]]
    assert found["warnings"] == [False, "Warning: boxes are <b>guesses</b>"]
    assert found["status"] == "flagged: fragments · 41 %, full · 99 %"
