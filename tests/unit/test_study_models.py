"""Backbones of a study: timm's own forward, masking, pooling, class tokens, weights."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="models of a study need torch")

from fgfast.studies import torchvision_shim  # noqa: E402

torchvision_shim.declare()
pytest.importorskip("timm", reason="models of a study need timm")

from study_models import SMALL, TOKENS, drawn, made  # noqa: E402

from fgfast.errors import UnknownNameError, UsageError, WeightsError  # noqa: E402
from fgfast.studies import layers, masking  # noqa: E402
from fgfast.studies.cell import Strategy  # noqa: E402
from fgfast.studies.models import build  # noqa: E402


def repainted(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return torch.where(mask > 0.5, x, torch.randn(x.shape, generator=torch.Generator().manual_seed(9)))


@pytest.mark.parametrize("kind", SMALL)
@torch.no_grad()
def test_none_is_timms_own_forward(kind: str) -> None:
    model = made(kind)
    x, mask = drawn(model)
    own = model.timm(x)
    assert torch.equal(model(x), own)
    assert torch.equal(model(x, mask, Strategy()), own)
    assert torch.equal(model.features(x), model.timm.forward_head(model.timm.forward_features(x), pre_logits=True))
    # Planted: the path of a single GPU in the paper's program has no norm; here that would be seen.
    norm = {"vit": "norm", "vit-mean": "fc_norm", "dinov2": "norm", "swin": "norm"}.get(kind)
    if norm:
        setattr(model.timm, norm, torch.nn.Identity())
        assert not torch.equal(model(x), own)


@pytest.mark.parametrize("kind", SMALL)
@torch.no_grad()
def test_an_all_true_mask_changes_no_bit(kind: str) -> None:
    model = made(kind)
    x, mask = drawn(model)
    for where in ("early", "late", "both"):
        for stage in ("last", "second-last"):
            assert torch.equal(model(x, torch.ones_like(mask), Strategy(where, stage)), model(x)), (where, stage)
    patch, fg = (model(x, torch.ones_like(mask), Strategy("late", pooling=p)) for p in ("patch", "fg"))
    assert torch.allclose(patch, fg, atol=1e-5)


@pytest.mark.parametrize("kind", SMALL)
@torch.no_grad()
def test_the_background_repainted(kind: str) -> None:
    model = made(kind)
    x, mask = drawn(model)
    other = repainted(x, mask)
    assert not torch.equal(model(x), model(other))
    for fill in ("black", "mean"):
        early = Strategy("early", fill=fill)
        assert torch.equal(model(x, mask, early), model(other, mask, early))
    late = Strategy("late")
    assert not torch.equal(model(x, mask, late), model(other, mask, late))  # what late masking cannot do: stated
    black = masking.early(x, mask, "black", model.cfg.mean, model.cfg.std)
    assert torch.equal(model(x, mask, Strategy("early")), model(black))
    with pytest.raises(UsageError, match="stored pixels"):
        model(x, mask, Strategy("early", fill="blur"))


@pytest.mark.parametrize("kind", TOKENS)
@torch.no_grad()
def test_block_from_the_first_block_on_hides_the_background_patches(kind: str) -> None:
    model = made(kind, depth=2)
    x, mask = drawn(model)
    # Wholly background patches alone: cells of any subject at all stay as they are.
    side = model.cfg.image_size[0]
    size = tuple(model.timm.patch_embed.dynamic_feat_size((side, side)))
    keep = masking.cells(mask, size, 1e-6)
    patches = torch.nn.functional.interpolate(keep, (side, side), mode="nearest")
    other = repainted(x, patches)
    assert not torch.equal(x, other)
    blocked = Strategy("late", "second-last", "native", "block", share=1e-6)
    for pooling in ("native", "class", "fg"):
        strategy = Strategy("late", "second-last", pooling, "block", share=1e-6)
        assert torch.equal(model(x, mask, strategy), model(other, mask, strategy)), pooling
    kept = Strategy("late", "second-last", share=1e-6)
    assert not torch.equal(model(x, mask, kept), model(other, mask, kept))
    for block in model.timm.blocks:
        block.attn.fused_attn = False
    assert torch.allclose(model(x, mask, blocked), model(other, mask, blocked))


@pytest.mark.parametrize("kind", SMALL)
def test_gradients_and_maps_are_masked_by_the_product(kind: str) -> None:
    model = made(kind)
    x, mask = drawn(model)
    strategy = Strategy("late", pooling="fg")
    maps = model.maps(x, mask, strategy)
    keep = masking.cells(mask, tuple(maps.shape[-2:]), strategy.share)
    assert not (maps * (1 - keep)).any()
    assert (maps * keep).any()
    model(x, mask, strategy).sum().backward()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("kind", SMALL)
def test_one_path_for_every_number_of_devices(kind: str) -> None:
    model = made(kind)
    x, mask = drawn(model)
    with torch.no_grad():
        for strategy in (Strategy(), Strategy("both", "second-last"), Strategy("late", pooling="fg")):
            replicas = [model, copy.deepcopy(model)]
            parts = [m(x[n : n + 1], mask[n : n + 1], strategy) for n, m in enumerate(replicas)]
            assert torch.allclose(torch.cat(parts), model(x, mask, strategy), atol=1e-4), strategy


def test_cells_keep_thin_subjects_and_no_empty_ones() -> None:
    mask = torch.zeros(3, 1, 32, 32)
    mask[0, 0, 3, 20] = 1  # one pixel, far below the share
    mask[1, 0, :8, :4] = 1  # half a cell
    keep = masking.cells(mask, (4, 4), 0.25)
    assert keep[0, 0].nonzero().tolist() == [[0, 2]]
    assert keep[1, 0].nonzero().tolist() == [[0, 0]]
    assert not keep[2].any()
    assert masking.cells(mask, (4, 4), 0.6)[1].sum() == 1  # still one
    values = torch.ones(3, 16, 2)
    assert torch.equal(masking.pooled_fg(values, keep.flatten(2).transpose(1, 2))[2], torch.zeros(2))


@torch.no_grad()
def test_fg_pooling_does_not_scale_with_the_subject() -> None:
    values = torch.ones(1, 16, 3)
    few, many = torch.zeros(1, 16, 1), torch.ones(1, 16, 1)
    few[:, :2] = 1
    assert torch.equal(masking.pooled_fg(values, few), masking.pooled_fg(values, many))
    assert (values * few).mean(1).max() < 0.2  # the plain mean does


@pytest.mark.parametrize("kind", TOKENS)
@torch.no_grad()
def test_class_tokens(kind: str) -> None:
    model, both = made(kind), made(kind, pooling="both")
    assert model.prefix == (5 if kind == "dinov2" else 1)
    x, mask = drawn(model)
    assert model.maps(x).shape[2] * model.maps(x).shape[3] == model.timm.patch_embed.num_patches
    assert both.timm.head.in_features == 2 * model.timm.num_features
    assert both.features(x, mask, Strategy("late", pooling="both")).shape == (2, 2 * model.timm.num_features)
    assert both(x, mask, Strategy("late", pooling="both")).shape == (2, 5)
    logits = {t: model(x, mask, Strategy("late", "second-last", "fg", t)) for t in ("keep", "drop", "block")}
    assert not torch.allclose(logits["keep"], logits["drop"], atol=1e-6)
    assert not torch.allclose(logits["keep"], logits["block"], atol=1e-6)
    for pooling in ("native", "class"):
        with pytest.raises(UsageError, match="dropped"):
            model(x, mask, Strategy("late", pooling=pooling, class_token="drop"))
    with pytest.raises(UsageError, match="made for pooling"):
        model(x, mask, Strategy(pooling="both"))
    with pytest.raises(UsageError, match="needs masks"):
        model(x, None, Strategy("late"))
    with pytest.raises(UsageError, match="belongs to late"):
        model(x, mask, Strategy(class_token="block"))


def test_an_unmasked_class_token_is_named() -> None:
    for pooling in ("native", "class", "both"):
        assert "class token keep" in Strategy("late", pooling=pooling).name
    assert "class token" not in Strategy("late", pooling="fg").name
    # It still speaks to the patches in the last block.
    assert "class token keep" in Strategy("late", "second-last", "fg").name
    assert "class token block" in Strategy("late", "second-last", "fg", "block").name


@pytest.mark.parametrize("kind", ["swin", "convnext", "resnet", "efficientnet"])
def test_models_without_class_token_say_so(kind: str) -> None:
    model = made(kind)
    x, mask = drawn(model)
    for strategy in (Strategy(pooling="class"), Strategy("late", class_token="block")):
        with pytest.raises(UsageError, match="class token"):
            model(x, mask, strategy)
    with pytest.raises(UsageError, match="class token"):
        made(kind, pooling="both")


@pytest.mark.parametrize(
    ("name", "family", "layer"),
    [
        ("vit_base_patch16_224", "vit", "blocks.11.norm1"),
        ("resnet50", "resnet", "layer4"),
        ("swinv2_base_window8_256", "swin", "norm"),
        ("convnext_base", "convnext", "stages.3"),
    ],
)
def test_the_default_names_on_meta(name: str, family: str, layer: str) -> None:
    with torch.device("meta"):
        model = build(name, 200)
    assert model.family == family
    assert layers.target_layer(model)[0] == layer
    half = (0.5, 0.5, 0.5)
    assert (model.cfg.mean == half) == (family == "vit")
    with torch.device("meta"), torch.no_grad():
        side = model.cfg.image_size[0]
        assert model(torch.zeros(1, 3, side, side)).shape == (1, 200)


@pytest.mark.parametrize("kind", SMALL)
def test_target_layers_have_a_gradient(kind: str) -> None:
    model = made(kind)
    x, _ = drawn(model)
    outputs: list[torch.Tensor] = []
    name, layer = layers.target_layer(model)
    hook = layer.register_forward_hook(lambda _m, _i, out: outputs.append(out))
    score = model(x)[:, 1].sum()
    hook.remove()
    (gradient,) = torch.autograd.grad(score, outputs[0])
    found = layers.as_map(model, gradient, tuple(x.shape[-2:]))
    layers.check_gradient(found, name)
    assert found.shape[-2:] == model.maps(x).shape[-2:]
    if kind in TOKENS:
        hook = model.timm.blocks[-1].register_forward_hook(lambda _m, _i, out: outputs.append(out))
        (gradient,) = torch.autograd.grad(model(x)[:, 1].sum(), outputs[-1])
        hook.remove()
        with pytest.raises(UsageError, match="zero in every cell"):
            layers.check_gradient(layers.as_map(model, gradient, tuple(x.shape[-2:])), "blocks[-1]")


def test_weights_come_with_a_digest(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    model = made("resnet")
    file = tmp_path / "test_resnet.trained.safetensors"
    save_file(model.timm.state_dict(), file)
    again = build(str(file), 5).eval()
    x, _ = drawn(model)
    assert torch.equal(again(x), model(x))
    assert len(again.digest) == 64
    assert build("test_resnet", 9, weights=file).timm.fc.out_features == 9  # another classifier starts anew
    with pytest.raises(WeightsError, match="another model"):
        build("test_convnext", 5, weights=file)
    torch.save(model.timm.state_dict(), tmp_path / "w.pth")
    assert torch.equal(build("test_resnet", 5, weights=tmp_path / "w.pth").eval()(x), model(x))
    (tmp_path / "bad.pth").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(WeightsError):
        build("test_resnet", 5, weights=tmp_path / "bad.pth")


def test_weights_that_are_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UsageError, match="--no-pretrained"):
        build("test_vit", 5, pretrained=True)
    with pytest.raises(UsageError, match="no model named 'resnet5O'; did you mean resnet50"):
        build("resnet5O", 5)
    with pytest.raises(UnknownNameError, match="class of a backbone"):
        build("test_byobnet", 5)


def test_nothing_but_numbers() -> None:
    """A strategy's late mask of float shares is 0 or 1, never between."""
    shares = torch.from_numpy(np.linspace(0, 1, 64, dtype=np.float32)).view(1, 1, 8, 8)
    assert set(masking.cells(shares, (8, 8), 0.5).unique().tolist()) == {0.0, 1.0}
