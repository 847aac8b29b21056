"""Captions: packages of questions without a model, and answers of a stub server, which may be hostile or fail."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_stub import Reply, failed, said, stub
from expanding import drawn, request_for, subject
from PIL import Image

import fgfast
from fgfast.config import Selection, Settings
from fgfast.errors import SampleError, UsageError
from fgfast.expand import caption_files, caption_server, caption_text
from fgfast.expand.caption_views import VIEWS, view
from fgfast.expand.kinds.captions import QUESTION, Captions, Options, class_name, plan
from fgfast.expand.plan import make_plan
from fgfast.expand.run import run
from fgfast.io.ledger import Ledger
from fgfast.pipeline.finish import Report

KEY = "sk-secret-0123456789"
COUNT = 8
needs_openai = pytest.mark.skipif(importlib.util.find_spec("openai") is None, reason="the package openai is not here")
pytest.importorskip("pyarrow")


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over eight drawn images of two classes; each has pixels of its own."""
    folder = tmp_path_factory.mktemp("captions")
    for n in range(COUNT):
        path = folder / "data" / ("001.Red_bird" if n % 2 else "a <b>&\u202e'class'") / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawn(seed=n)[0]).save(path)
    settings = Settings(detector="center", segmenter="box")
    fgfast.convert(folder / "data", folder / "run", settings=settings, in_process=True)
    return folder / "run"


def expanded(converted: Path, out: Path, more: dict[str, Any] | None = None, **options: Any) -> Report:
    with make_plan(converted, "captions", out, options=Options(**options), **(more or {})) as planned:
        return run(planned, in_process=True)


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def everything(out: Path) -> bytes:
    """The bytes of all files of an output."""
    return b"".join(path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file())


def test_without_a_model_questions_and_images_are_written(converted: Path, tmp_path: Path) -> None:
    report = expanded(converted, tmp_path / "out", name_class=True)
    assert report.counts["done"] + report.counts["flagged"] == COUNT
    out = tmp_path / "out"
    found = lines(out / "captions.jsonl")
    assert [row["view"] for row in found] == list(VIEWS) * COUNT and all(row["caption"] is None for row in found)
    keys = list(dict.fromkeys(row["key"] for row in found))
    assert keys == [row["key"] for row in found[:: len(VIEWS)]] == sorted(keys), "in the data set's order"
    assert {row["question"] for row in found} == {
        f"{QUESTION} It shows: Red bird.",
        f"{QUESTION} It shows: a <b>& 'class'.",
    }
    for row, chat, batch in zip(found, lines(out / "huggingface.jsonl"), lines(out / "openai.jsonl"), strict=True):
        (turn,) = chat["messages"]
        assert turn["content"] == [{"type": "image", "path": row["image"]}, {"type": "text", "text": row["question"]}]
        assert chat["images"] == [row["image"]]
        with Image.open(out / row["image"]) as image:
            assert image.format == "JPEG" and max(image.size) <= 80
        assert (batch["method"], batch["url"]) == ("POST", "/v1/chat/completions") and batch["custom_id"] == chat["id"]
        (message,) = batch["body"]["messages"]
        assert message["content"][0]["image_url"]["url"] == row["image"]
        assert batch["body"].items() >= {"max_completion_tokens": 200, "temperature": 0}.items()
        assert "model" not in batch["body"]


def test_images_can_be_embedded_in_files_within_the_limits(
    converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caption_files, "_BATCH_REQUESTS", 3)
    expanded(converted, tmp_path / "out", embed=True, views="crop", question="What?")
    files = sorted((tmp_path / "out").glob("openai-*.jsonl"))
    assert [len(lines(file)) for file in files] == [3, 3, 2]
    row = lines(tmp_path / "out" / "captions.jsonl")[0]
    url = lines(files[0])[0]["body"]["messages"][0]["content"][0]["image_url"]["url"]
    assert url == caption_server.url_of((tmp_path / "out" / row["image"]).read_bytes())


@pytest.mark.full
def test_datasets_reads_the_chats(converted: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    expanded(converted, tmp_path / "out", views="whole")
    loaded = datasets.load_dataset(
        "json", data_files=str(tmp_path / "out" / "huggingface.jsonl"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert len(loaded) == COUNT and loaded[0]["messages"][0]["role"] == "user"


def test_views() -> None:
    pixels, bits = drawn(200, 300)
    cut, crop, whole = (view(name, pixels, bits, 8192, "grey") for name in VIEWS)
    assert whole.shape == pixels.shape and cut.shape == crop.shape != whole.shape
    same = (cut == crop).all(-1)
    assert (cut[~same] == 128).all() and same.sum() == pytest.approx(bits.sum(), abs=9)
    assert max(view("whole", pixels, bits, 64, "white").shape) == 64
    one = np.ones((1, 1), bool)
    assert all(view(name, np.zeros((1, 1, 3), np.uint8), one, 64, "white").shape == (1, 1, 3) for name in VIEWS)


def test_no_old_background_is_in_a_cut_out() -> None:
    pixels, bits = drawn(200, 300)
    magenta = pixels.copy()
    magenta[~bits] = 255, 0, 255
    assert (view("cut-out", pixels, bits, 70, "white") == view("cut-out", magenta, bits, 70, "white")).all()


def test_an_empty_mask_is_skipped() -> None:
    pixels, bits = drawn()
    assert Captions(Options(), VIEWS, None)(subject(pixels, bits & False)).skipped


@needs_openai
def test_answers_are_asked_for_and_failures_repeated(
    converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(caption_server.KEY, KEY)

    def reply(number: int) -> Reply:
        return failed(429) if number % 5 == 1 else failed(500) if number % 7 == 2 else said(f"A bird, {number}.")

    with stub(reply) as asked:
        report = expanded(converted, tmp_path / "out", views="cut-out", model=f"{asked.address}#stub")
    assert report.counts["failed"] == 0 and len(asked.requests) > COUNT
    assert set(asked.images.values()) == {1} and len(asked.images) == COUNT
    assert asked.keys == {f"Bearer {KEY}"} and asked.texts == {QUESTION}
    assert {(r["model"], r["temperature"], r["max_tokens"]) for r in asked.requests} == {("stub", 0, 200)}
    found = lines(tmp_path / "out" / "captions.jsonl")
    assert all(row["caption"].startswith("A bird") and row["end"] == "stop" for row in found)
    assert {row["model"] for row in found} == {"stub"} and {row["caption_tokens"] for row in found} == {3}
    assert lines(tmp_path / "out" / "huggingface.jsonl")[0]["messages"][1]["content"][0]["text"] == found[0]["caption"]
    sent = {hashlib.sha256((tmp_path / "out" / row["image"]).read_bytes()).hexdigest() for row in found}
    assert sent == set(asked.images), "what is written is what was sent"
    assert KEY.encode() not in everything(tmp_path / "out")


HOSTILE = {
    "html": said("<img src=x onerror=alert(1)></figcaption><script>alert(2)</script>"),
    "control": said("\x1b]0;owned\x07\x1b[2J\u202eevil\u2066 \x00 two\nlines\u2028 \ud800 end"),
    "echo": said(f"your key is {KEY}"),
    "long": said("word " * 100_000),
    "parts": said([{"type": "text", "text": "one"}, {"type": "image", "url": "x"}, {"type": "text", "text": "two"}]),
    "nothing": said(None),
    "refusal": said(None, message={"refusal": "I will not"}),
    "megabytes": said("x" * (3 << 20)),
    "no json": Reply(200, b"<html><script>alert(3)</script>" + KEY.encode(), {"content-type": "text/html"}),
    "other json": Reply(200, b'{"choices": [null]}'),
    "list": Reply(200, b"[]"),
    "number": said(7),
    "deep": Reply(200, b"[" * 200_000),
    "bad parts": said([1]),
    "no bytes": Reply(200, b""),
    "compressed": Reply(200, said("x").body, {"content-encoding": "gzip"}),
    "redirect": Reply(307, b"", {"location": "http://127.0.0.1:9/v1/chat/completions"}),
    "error": Reply(400, json.dumps({"error": {"message": f"\x1b[2J<b>{KEY}</b>" + "y" * 9000}}).encode()),
    "huge error": Reply(400, b"z" * (1 << 18)),
}
GOOD = {
    "html": "<img src=x onerror=alert(1)></figcaption><script>alert(2)</script>",
    "control": "]0;owned [2J evil two lines end",
    "echo": "your key is ***",
    "parts": "one two",
    "nothing": "",
    "refusal": "",
}


@needs_openai
def test_hostile_answers_are_bounded_and_escaped(
    converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(caption_server.KEY, KEY)
    monkeypatch.setattr(caption_server, "_RETRIES", 0)
    names = list(HOSTILE)
    answers: dict[str, Any] = {}
    with stub(lambda number: HOSTILE[names[number]]) as asked:
        server = caption_server.Server(asked.address, "stub", None, 5, True)
        for name in names:
            try:
                answers[name] = server.ask(b"jpeg", "What?", time.monotonic() + 60)
            except SampleError as error:
                answers[name] = error
        assert len(asked.requests) == len(names), "nobody is asked elsewhere"
    assert {name: a.text for name, a in answers.items() if isinstance(a, caption_text.Answer) and name in GOOD} == GOOD
    assert len(answers["long"].text) <= caption_text.MOST_CHARACTERS and answers["long"].flags == ("caption cut",)
    assert answers["nothing"].flags == ("no caption",) and answers["refusal"].end == "refusal"
    texts = [answer.detail for answer in answers.values() if isinstance(answer, SampleError)]
    assert all(len(text) < 400 and KEY not in text and not re.search(r"[\x00-\x1f]", text) for text in texts)
    bad = {name for name, answer in answers.items() if isinstance(answer, SampleError)}
    assert bad == set(names) - set(GOOD) - {"long"}
    assert "answers 400" in str(answers["error"]) and "***" in str(answers["error"])
    with stub(lambda number: list(HOSTILE.values())[number % 3]) as asked:
        expanded(converted, tmp_path / "out", views="whole", model=asked.address + "#s")
    page = (tmp_path / "out" / "captions.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(2)" in page and "<script" not in page and "<img src=x" not in page
    assert "&lt;b&gt;&amp;" in page and page.count("<figure>") == COUNT and "default-src &#x27;none" not in page
    assert KEY.encode() not in everything(tmp_path / "out")


@needs_openai
@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_server_that_refuses_everybody_is_not_asked_again(converted: Path, tmp_path: Path, status: int) -> None:
    with stub(lambda number: failed(status)) as asked:
        report = expanded(converted, tmp_path / "out", views="whole", model=f"{asked.address}#none", at_once=1)
    assert report.counts["failed"] == COUNT and len(asked.requests) == 1
    with Ledger(tmp_path / "out" / "fgfast" / "ledger.sqlite", write=False) as ledger:
        details = {outcome.detail for outcome in ledger.outcomes(("failed",))}
    assert all(f"answers {status}: " in text and f"stub says {status}" in text for text in details)


@needs_openai
def test_a_server_that_is_not_there_is_not_waited_for_again_and_again(
    converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caption_server, "_RETRIES", 0)
    with stub(lambda number: said("x")) as asked:
        gone = asked.address
    report = expanded(converted, tmp_path / "out", views="whole", model=f"{gone}#m", at_once=1)
    assert report.failures == {"server": COUNT}


@needs_openai
def test_nothing_is_asked_too_late() -> None:
    with stub(lambda number: said("x")) as asked, pytest.raises(SampleError, match="too late"):
        caption_server.Server(asked.address, "m", None, 5, False).ask(b"jpeg", "What?", time.monotonic() - 1)
    assert not asked.requests


@needs_openai
def test_failed_samples_are_asked_about_again_and_others_are_not(converted: Path, tmp_path: Path) -> None:
    options = {"views": "cut-out", "at_once": 1}
    with stub(lambda number: failed(400) if number in (2, 5) else said(f"{number}")) as asked:
        model = f"{asked.address}#m"
        assert expanded(converted, tmp_path / "out", model=model, **options).counts["failed"] == 2
        before = set(asked.images)
        assert expanded(converted, tmp_path / "out", model=model, per_minute=60_000.0, **options).counts["failed"] == 0
        assert len(asked.requests) == COUNT + 2 and set(asked.images.values()) == {1} and len(before) == COUNT - 2
        assert expanded(converted, tmp_path / "out", model=model, **options).counts["failed"] == 0
        assert len(asked.requests) == COUNT + 2


@pytest.mark.full
@needs_openai
def test_a_killed_run_is_resumed_without_asking_twice(converted: Path, tmp_path: Path) -> None:
    out, environment = tmp_path / "out", {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with stub(lambda number: said(f"caption {number}"), seconds=0.25) as asked:
        command = [sys.executable, "-m", "fgfast", "expand", str(converted), "captions", "--out", str(out)]
        command += ["--views", "cut-out", "--at-once", "1", "--model", f"{asked.address}#stub"]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        committed = _committed(out, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        time.sleep(0.5)  # what the worker process had asked is answered to nobody
        assert 0 < len(committed) < COUNT
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    found = {row["key"]: row for row in lines(out / "captions.jsonl")}
    assert len(found) == COUNT and len(asked.images) == COUNT
    times = {
        key: asked.images[hashlib.sha256((out / row["image"]).read_bytes()).hexdigest()] for key, row in found.items()
    }
    assert all(times[key] == 1 for key in committed), "what the ledger had was not asked again"
    assert sum(times.values()) <= COUNT + 2, "only what was in flight was lost"


def _committed(out: Path, process: subprocess.Popen[bytes]) -> set[str]:
    """Wait until the ledger has two samples; return their keys."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
        try:
            with Ledger(out / "fgfast" / "ledger.sqlite", write=False) as ledger:
                keys = {outcome.key for outcome in ledger.outcomes(("done", "flagged"))}
        except Exception:  # it is being made
            continue
        if len(keys) >= 2:
            return keys
    raise AssertionError("the run ended, or did nothing")


@needs_openai
def test_the_pace_holds_for_repeated_requests_and_all_threads(converted: Path, tmp_path: Path) -> None:
    with stub(lambda number: failed(429) if number == 1 else said("x")) as asked:
        more = {"selection": Selection(limit=5)}
        expanded(converted, tmp_path / "out", more, views="crop", model=f"{asked.address}#m", per_minute=600.0)
    assert len(asked.times) == 6
    # A request is sent at its turn, and arrives some milliseconds later.
    apart = np.diff(sorted(asked.times))
    assert apart.min() > 0.07 and asked.times[-1] - asked.times[0] > 0.47


def test_the_key_goes_over_https_or_stays_here(monkeypatch: pytest.MonkeyPatch, converted: Path) -> None:
    pytest.importorskip("openai")
    assert caption_server.sends_key("https://host/v1") and caption_server.sends_key("http://127.0.0.1:1/v1")
    assert not caption_server.sends_key("http://host/v1")
    with request_for(converted, "captions") as request:
        monkeypatch.setenv(caption_server.KEY, KEY)
        planned = plan(request, Options(model="http://host/v1#m"))
        assert "is not sent" in planned.warnings[0] and planned.workers == 1 and planned.threads == 4
        assert KEY.encode() not in pickle.dumps(planned.step)
        assert plan(request, Options(model="https://host/v1#m", per_minute=6)).threads == 2
        assert not plan(request, Options(model="m", api_base="https://host/v1/")).warnings
        monkeypatch.delenv(caption_server.KEY)
        with pytest.raises(UsageError, match=caption_server.KEY):
            plan(request, Options(model="gpt", api_base=caption_server.OPENAI))


@pytest.mark.parametrize(
    ("model", "base", "words"),
    [
        ("https://user:pass@host/v1#m", None, "environment"),
        ("https://host/v1?key=1#m", None, "environment"),
        ("https://host/v1", None, "#NAME"),
        ("m", "host:8000", "api-base must be"),
        ("m", "ftp://host/v1", "api-base must be"),
        ("no such thing", None, "no folder"),
    ],
)
def test_what_cannot_be_asked_is_refused(converted: Path, model: str, base: str | None, words: str) -> None:
    pytest.importorskip("openai")
    with request_for(converted, "captions") as request, pytest.raises(UsageError, match=words):
        plan(request, Options(model=model, api_base=base))


def test_a_folder_without_a_model_is_refused(converted: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    with request_for(converted, "captions") as request, pytest.raises(UsageError, match=r"config\.json"):
        plan(request, Options(model=str(tmp_path)))


def _import_transformers() -> None:
    pytest.importorskip("torch")
    from fgfast.studies import torchvision_shim

    torchvision_shim.declare()
    pytest.importorskip("transformers")


def _tiny_model(folder: Path) -> None:
    """Save a model with random weights: eyes of one layer, a mouth of one layer, and thirty words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
        set_seed,
    )

    words = ["<unk>", "<s>", "</s>", "<pad>", "<image>", *(f"word{n}" for n in range(25))]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, additional_special_tokens=["<image>"], **special)
    eyes = CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    template = (
        "{% for m in messages %}{% for c in m.content %}{% if c.type == 'image' %}<image> {% else %}{{ c.text }} "
        "{% endif %}{% endfor %}{% endfor %}"
    )
    LlavaProcessor(
        eyes,
        fast,
        patch_size=14,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=1,
        chat_template=template,
    ).save_pretrained(folder)
    small = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = CLIPVisionConfig(**small, image_size=28, patch_size=14)
    text = LlamaConfig(
        **small, vocab_size=len(words), num_key_value_heads=2, pad_token_id=3, bos_token_id=1, eos_token_id=2
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=4,
        vision_feature_select_strategy="full",
        image_seq_length=5,
    )
    set_seed(3)
    LlavaForConditionalGeneration(config).save_pretrained(folder)


@pytest.mark.full
def test_a_model_of_transformers_answers_the_same_again(converted: Path, tmp_path: Path) -> None:
    _import_transformers()
    _tiny_model(tmp_path / "tiny")
    for out in ("one", "two"):
        report = expanded(converted, tmp_path / out, model=str(tmp_path / "tiny"), views="crop", tokens=6)
        assert report.counts["failed"] == 0
    one, two = (lines(tmp_path / out / "captions.jsonl") for out in ("one", "two"))
    assert one == two and all(row["caption"].startswith("word") and row["model"] == "tiny" for row in one)
    assert {row["caption_tokens"] for row in one} <= set(range(1, 7)) and all(row["question_tokens"] > 5 for row in one)


@pytest.mark.full
def test_a_model_that_cannot_be_loaded_fails_its_images_with_a_sentence(converted: Path, tmp_path: Path) -> None:
    _import_transformers()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text('{"model_type": "no such"}')
    report = expanded(converted, tmp_path / "out", model=str(tmp_path / "broken"), views="crop")
    assert report.counts["failed"] == COUNT and report.failures == {"model": COUNT}


def test_a_model_that_has_to_be_fetched_first_is_told(converted: Path) -> None:
    pytest.importorskip("transformers")
    with request_for(converted, "captions") as request:
        planned = plan(request, Options(model="nobody/no-such-model"))
    assert "hf download nobody/no-such-model" in planned.warnings[0] and (planned.workers, planned.threads) == (1, 1)


@pytest.mark.parametrize(
    ("label", "name"),
    [("001.Black_footed_Albatross", "Black footed Albatross"), ("707-320", "707-320"), ("", ""), ("\x1b[2J", "[2J")],
)
def test_class_names_are_written_as_one_writes_them(label: str, name: str) -> None:
    assert class_name(label) == name


def test_plain_texts() -> None:
    assert caption_text.plain("a\u200db \t c") == ("a\u200db c", False)
    assert caption_text.plain("x" * 50, most=10) == ("x" * 10, True)
    assert caption_text.plain("key key", secret="key") == ("key key", False), "too short for a secret"
