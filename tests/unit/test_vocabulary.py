"""Vocabularies: LVIS's names, words of one's own, files; CLIP's text encoder where it is needed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fgfast.errors import ModelNotCachedError, UsageError, WeightsError
from fgfast.models import vocabulary
from fgfast.models.files import hub, weights
from fgfast.models.vocabulary import encode, load_vocabulary, row_of
from fgfast.records import Float32, plain

NAMES = ("airplane", "bird", "car_(automobile)", "fire_engine", "fish", "fish_(food)", "pan_(metal)", "pan_(cooking)")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("FGFAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return tmp_path / "cache"


@pytest.fixture
def lvis(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Float32:
    """A small LVIS: its embeddings."""
    folder = cache / "models"
    folder.mkdir(parents=True)
    table = np.random.default_rng(0).normal(size=(len(NAMES), 512)).astype(np.float16)
    np.save(folder / "lvis_v1_clip_a+cname.npy", table)
    rows = [{"id": row + 1, "name": name} for row, name in enumerate(NAMES)]
    (folder / "lvis_v1_train_cat_info.json").write_text(json.dumps(rows[::-1]))
    official = weights.MODELS["lvis"]
    files = tuple(
        replace(r, digest=f"md5:{hashlib.md5((folder / r.file).read_bytes()).hexdigest()}", size=None)
        for r in official.files
    )
    monkeypatch.setattr(weights, "MODELS", {**weights.MODELS, "lvis": replace(official, files=files)})
    return table.astype(np.float32)


@pytest.fixture
def torchvision() -> None:
    """transformers imports torchvision where it is installed, which needs help beside some builds of torch."""
    pytest.importorskip("torch")
    from fgfast.studies.torchvision_shim import declare

    declare()


def no_encoder(names: Sequence[str]) -> Float32:
    raise AssertionError(f"no text encoder is needed for {names}")


def test_lvis_and_words_that_it_has(lvis: Float32, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "clip_encoder", lambda: no_encoder)
    names, embeddings = load_vocabulary("lvis")
    assert names == NAMES
    assert embeddings.dtype == np.float32 and np.array_equal(embeddings, lvis)
    names, embeddings = load_vocabulary("Car, bird,fire engine,fish,pan_(metal)")
    assert names == ("Car", "bird", "fire engine", "fish", "pan_(metal)")
    assert np.array_equal(embeddings, lvis[[2, 1, 3, 4, 6]])


def test_a_word_with_several_meanings() -> None:
    with pytest.raises(UsageError, match=r"use one of: pan_\(metal\), pan_\(cooking\)"):
        row_of("pan", NAMES)
    assert [row_of(name, NAMES) for name in NAMES] == list(range(len(NAMES)))
    assert row_of("van", NAMES) is None
    assert [plain(name) for name in ("car_(automobile)", "Fire_engine", "bird")] == ["car", "fire engine", "bird"]


def test_a_file_of_names(lvis: Float32, tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_text("# what flies\nairplane\n\n  bird  # and this\n", encoding="utf-8")
    for spec in (file, str(file)):
        names, embeddings = load_vocabulary(spec)
        assert names == ("airplane", "bird")
        assert np.array_equal(embeddings, lvis[:2])


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        (",", "has no names"),
        ("", "has no names"),
        ("bird,Bird", "twice"),
        ("none.txt", "no file"),
        (Path("none"), "text file"),
    ],
)
def test_what_is_no_vocabulary(spec: str | Path, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        load_vocabulary(spec)


def test_without_the_files_it_says_what_to_type(lvis: Float32, cache: Path) -> None:
    with pytest.raises(ModelNotCachedError, match="fgfast models pull clip_text"):
        load_vocabulary("van")
    (cache / "models" / "lvis_v1_clip_a+cname.npy").unlink()
    with pytest.raises(ModelNotCachedError, match="fgfast models pull lvis"):
        load_vocabulary("bird")
    names, embeddings = load_vocabulary("bird,van", "random:1")
    assert names == ("bird", "van") and embeddings.shape == (2, 512)
    again = load_vocabulary("van", "random:1").embeddings
    assert np.array_equal(again[0], embeddings[1])
    assert not np.array_equal(again, load_vocabulary("van", "random:2").embeddings)


def test_only_words_that_lvis_lacks_are_encoded(lvis: Float32, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "clip_encoder", lambda: lambda names: np.full((len(names), 512), 2.0, np.float32))
    _, embeddings = load_vocabulary("bird,van")
    assert np.array_equal(embeddings, np.stack([lvis[1], np.full(512, 2, np.float32)]))
    monkeypatch.setattr(vocabulary, "clip_encoder", lambda: lambda names: np.zeros((1, 3), np.float32))
    with pytest.raises(WeightsError, match="text encoder"):
        encode(["lorry"])


def test_embeddings_that_were_not_computed_here_are_computed_again(
    lvis: Float32, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vocabulary, "clip_encoder", lambda: lambda names: np.full((len(names), 512), 2.0, np.float32))
    assert load_vocabulary("van").embeddings[0, 0] == 2
    (file,) = (cache / "vocabulary").glob("*.npz")
    for forged in (np.full((1, 512), 3, np.float32), np.array([[None] * 512], dtype=object), np.zeros((2, 2))):
        np.savez(file, names=np.array(["van"]), embeddings=forged)
        assert load_vocabulary("van").embeddings[0, 0] == 2
    file.write_bytes(b"PK\x03\x04")
    assert load_vocabulary("van").embeddings[0, 0] == 2


@pytest.mark.usefixtures("torchvision")
def test_clip_encodes_other_words_once(lvis: Float32, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    clip = tiny_clip(monkeypatch)
    embeddings = load_vocabulary("van,bird,delivery van").embeddings
    model = transformers.CLIPTextModelWithProjection.from_pretrained(clip).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(clip)
    for row, text in ((0, "a van"), (2, "a delivery van")):  # each alone: padding does not matter
        with torch.inference_mode():
            wanted = model(**tokenizer([text], return_tensors="pt")).text_embeds[0].numpy()
        assert np.allclose(embeddings[row], wanted, atol=1e-5)
    assert np.array_equal(embeddings[1], lvis[1])
    assert len(list((cache / "vocabulary").glob("*.npz"))) == 1

    monkeypatch.setattr(vocabulary, "clip_encoder", lambda: no_encoder)
    again = load_vocabulary("delivery van,van").embeddings
    assert np.array_equal(again, embeddings[[2, 0]])
    with pytest.raises(AssertionError):
        load_vocabulary("lorry")


def tiny_clip(monkeypatch: pytest.MonkeyPatch) -> Path:
    """A text encoder of random weights in the hub's cache, where CLIP's would be."""
    import torch
    import transformers

    folder = hub.CLIP.place()
    folder.mkdir(parents=True)
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: row for row, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    files = (str(folder / "vocab.json"), str(folder / "merges.txt"))
    tokenizer = transformers.CLIPTokenizer(*files)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.CLIPTextConfig(
        vocab_size=len(tokens), hidden_size=16, intermediate_size=32, projection_dim=512, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=77, bos_token_id=len(tokens) - 2, eos_token_id=len(tokens) - 1,
    )  # fmt: skip
    model = transformers.CLIPTextModelWithProjection(config)
    config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    for other in hub.CLIP.others:
        assert (folder / other).exists() or (folder / other).write_text("{}" if other != "merges.txt" else "")
    digest = hashlib.sha256((folder / "pytorch_model.bin").read_bytes()).hexdigest()
    snapshot = replace(hub.CLIP, sha256=digest)
    model_of = replace(weights.MODELS["clip_text"], snapshot=snapshot)
    monkeypatch.setattr(weights, "MODELS", {**weights.MODELS, "clip_text": model_of})
    return folder
