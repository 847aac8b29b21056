"""Styles from a run on disk: each is a data set that loads like the source; and a real, tiny model of diffusers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from expanding import planned
from layouts import SUBJECT, cub, files_below
from PIL import Image

import fgfast
from fgfast.config import Settings
from fgfast.datasets import open_dataset
from fgfast.expand.kinds.styles import Options
from fgfast.expand.plan import How
from fgfast.expand.run import run
from fgfast.ops.styles import STYLES

TIMES = ("ledger.sqlite", "run.json", "report.html", "lock", "lock.owner")
KEY = "images/001.Auk/Auk_0001_10.jpg"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four drawn birds."""
    top = tmp_path_factory.mktemp("styles")
    fgfast.convert("cub", top / "run", root=cub(top), settings=Settings(segmenter="box", format="png"), in_process=True)
    return top / "run"


def expanded(source: Path, out: Path, **more: Any) -> dict[str, bytes]:
    """Make styles of it; return the files that hold no times."""
    running = {name: more.pop(name) for name in ("workers", "in_process") if name in more}
    with planned(source, "styles", out, **more) as plan:
        report = run(plan, **{"in_process": True, **running})
    assert report.counts["done"] == report.total
    return {name: data for name, data in files_below(out).items() if not name.endswith(TIMES)}


def test_each_style_is_a_data_set_like_the_source(source: Path, tmp_path: Path) -> None:
    expanded(source, tmp_path / "out", how=How(format="png"))
    before = open_dataset("cub", source.parent / "CUB_200_2011")
    x0, y0, x1, y1 = SUBJECT
    for style in STYLES:
        after = open_dataset("cub", tmp_path / "out" / style / "CUB_200_2011")
        assert after.classes == before.classes and [s.label for s in after.samples] == [s.label for s in before.samples]
        assert [s.boxes.tolist() for s in after.samples] == [s.boxes.tolist() for s in before.samples]
        pixels = np.asarray(Image.open(after.samples[0].path)).copy()
        pixels[y0:y1, x0:x1] = 0
        assert not pixels.any()


def test_workers_do_not_change_a_byte(source: Path, tmp_path: Path) -> None:
    alone = expanded(source, tmp_path / "alone")
    assert expanded(source, tmp_path / "two", in_process=False, workers=2) == alone
    assert {f"{style}/CUB_200_2011/{KEY}" for style in STYLES} <= {*alone}
    on_image = expanded(source, tmp_path / "image", options=Options(styles="oil", on="image"))
    assert on_image[f"oil/CUB_200_2011/{KEY}"] != alone[f"oil/CUB_200_2011/{KEY}"]


def test_a_run_without_background_has_styles_without_one(tmp_path: Path) -> None:
    settings = Settings(segmenter="box", format="png", background="transparent")
    fgfast.convert("cub", tmp_path / "run", root=cub(tmp_path), settings=settings, in_process=True)
    found = expanded(tmp_path / "run", tmp_path / "out", options=Options(styles="oil"))
    (name,) = (name for name in found if name.startswith("oil/") and "Auk_0001" in name)
    assert name.endswith(".png") and np.asarray(Image.open(tmp_path / "out" / name)).shape == (36, 48, 4)


def tiny_model(folder: Path) -> Path:
    """A Stable Diffusion pipeline of 40,000 random weights, as diffusers saves one."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    letters = [chr(code) for code in range(97, 123)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        block_out_channels=(4, 8),
        layers_per_block=1,
        sample_size=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=8,
        norm_num_groups=2,
        attention_head_dim=4,
    )
    vae = AutoencoderKL(
        block_out_channels=[4, 8],
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        norm_num_groups=2,
    )
    text = CLIPTextConfig(
        bos_token_id=52,
        eos_token_id=53,
        hidden_size=8,
        intermediate_size=16,
        num_attention_heads=2,
        num_hidden_layers=1,
        vocab_size=len(words),
    )
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77),
        unet=unet,
        scheduler=DDIMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder / "model")
    return folder / "model"


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")
def test_a_real_pipeline_of_diffusers_redraws_each_image(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    from fgfast.studies import torchvision_shim

    torchvision_shim.declare()
    pytest.importorskip("diffusers", reason="diffusers is not installed (extra styles)")
    pytest.importorskip("transformers", reason="transformers is not installed (extra styles)")
    options = Options(model=str(tiny_model(tmp_path / "tiny")), steps=4, side=64, device="cpu")
    first = expanded(source, tmp_path / "first", options=options, how=How(format="png"))
    name = f"model/CUB_200_2011/{KEY.removesuffix('.jpg')}.png"
    pixels = np.asarray(Image.open(tmp_path / "first" / name)).copy()
    x0, y0, x1, y1 = SUBJECT
    assert pixels[y0:y1, x0:x1].std() > 5
    pixels[y0:y1, x0:x1] = 0
    assert not pixels.any()
    assert expanded(source, tmp_path / "again", options=options, how=How(format="png")) == first
    other = expanded(source, tmp_path / "other", options=options, how=How(format="png", seed=1))
    assert other[name] != first[name]
