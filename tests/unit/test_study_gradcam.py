"""Grad-CAM and input gradients of a study's backbones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="models of a study need torch")

from fgfast.studies import torchvision_shim  # noqa: E402

torchvision_shim.declare()
pytest.importorskip("timm", reason="models of a study need timm")

from study_models import SMALL, drawn, made  # noqa: E402

from fgfast.errors import UsageError  # noqa: E402
from fgfast.studies import gradcam, layers, masking  # noqa: E402
from fgfast.studies.cell import Strategy  # noqa: E402

CLASSES = torch.tensor([1, 3])


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# How pytorch-grad-cam's own examples bring each family's output to a map, written out here: tokens before the patches,
# sides of the grid. Swin's output is (B, h, w, D).
BEFORE = {"vit": (1, 4, 4), "vit-mean": (1, 4, 4), "dinov2": (5, 4, 4)}


def reshaped(kind: str, output: torch.Tensor) -> torch.Tensor:
    if kind == "swin":
        return output.transpose(2, 3).transpose(1, 2)
    if kind not in BEFORE:
        return output
    before, height, width = BEFORE[kind]
    return output[:, before:].reshape(len(output), height, width, -1).transpose(2, 3).transpose(1, 2)


def theirs(kind: str, model: torch.nn.Module, x: torch.Tensor, classes: torch.Tensor) -> np.ndarray:
    """pytorch-grad-cam's maps. Not inside `with GradCAM`, which swallows an IndexError."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    _, layer = layers.target_layer(model)
    cam = GradCAM(model.timm, [layer], reshape_transform=lambda output: reshaped(kind, output))
    return cam(x, targets=[ClassifierOutputTarget(int(c)) for c in classes])


def stretched(found: torch.Tensor, side: int) -> list[np.ndarray]:
    """Our raw maps as pytorch-grad-cam shows its own: minimum subtracted, stretched to 1, at the input's size."""
    import cv2

    shown = []
    for one in found.numpy():
        small = (one - one.min()) / (1e-7 + (one - one.min()).max())
        large = cv2.resize(small.astype(np.float32), (side, side))
        shown.append((large - large.min()) / (1e-7 + (large - large.min()).max()))
    return shown


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", SMALL)
def test_maps_are_pytorch_grad_cams_before_it_stretches_them(kind: str) -> None:
    pytest.importorskip("pytorch_grad_cam", reason="the other way to a map is pytorch-grad-cam's")
    model = made(kind)
    x, mask = drawn(model)
    ours = stretched(gradcam.maps(model, x, mask, CLASSES, Strategy()), model.cfg.image_size[0])
    assert np.allclose(ours, theirs(kind, model, x, CLASSES), atol=1e-3)
    # Maps of another class are others: a mistaken target does not pass for the right one.
    assert not np.allclose(ours, theirs(kind, model, x, (CLASSES + 1) % 5), atol=0.05)


@pytest.mark.parametrize("kind", ["vit-mean", "dinov2", "swin", "convnext", "resnet"])
def test_cells_of_a_map_are_those_of_the_last_map_that_the_model_pools(kind: str) -> None:
    """The layer's output, brought to a map, is the model's last map: no prefix token in it, no axis for another."""
    model = made(kind, **({"global_pool": "avg"} if kind == "dinov2" else {}))
    x, mask = drawn(model)
    seen: list[torch.Tensor] = []
    _, layer = layers.target_layer(model)
    hook = layer.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    with torch.no_grad():
        last = model.maps(x, mask)
    hook.remove()
    output = model.timm.norm(seen[0]) if model.family == "vit" else seen[0]
    assert torch.equal(layers.as_map(model, output, tuple(x.shape[-2:])), last)


def test_registers_are_no_patches() -> None:
    model = made("dinov2")
    assert model.prefix == 5  # a class token and four registers
    numbers = torch.arange(5 + 16.0).view(1, 21, 1)
    cells = layers.as_map(model, numbers, (56, 56))
    assert cells.shape == (1, 1, 4, 4) and cells.flatten().tolist() == list(range(5, 21))
    x, mask = drawn(model)
    right = gradcam.maps(model, x, mask, CLASSES, Strategy())
    model.prefix = 1  # the usual mistake: 20 cells are no grid of 4 x 4
    with pytest.raises(RuntimeError):
        gradcam.maps(model, x, mask, CLASSES, Strategy())
    model.prefix = 5
    assert torch.equal(gradcam.maps(model, x, mask, CLASSES, Strategy()), right)


def test_channels_last_is_not_taken_for_channels_first() -> None:
    model = made("swin")
    x, mask = drawn(model)
    found = gradcam.maps(model, x, mask, CLASSES, Strategy())
    assert found.shape == (2, 2, 2)  # 64 pixels by 32
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gradcam, "as_map", lambda _model, output, _size: output)
        wrong = gradcam.maps(model, x, mask, CLASSES, Strategy())
    assert wrong.shape == (2, 2, 256)  # rows as channels: what this test would find


def test_a_layer_that_the_classifier_does_not_read_is_refused() -> None:
    model = made("vit")
    x, mask = drawn(model)
    last = len(model.timm.blocks) - 1
    with pytest.MonkeyPatch.context() as patch:  # behind a class token the last block's patches go nowhere
        patch.setattr(gradcam, "target_layer", lambda *_: (f"blocks.{last}", model.timm.blocks[last]))
        with pytest.raises(UsageError, match=rf"the gradient at blocks.{last} is zero in every cell"):
            gradcam.maps(model, x, mask, CLASSES, Strategy())


def test_a_subject_outside_the_crop_is_no_fault_of_the_layer() -> None:
    model = made("resnet")
    x, mask = drawn(model)
    strategy = Strategy("late", pooling="fg")
    found = gradcam.maps(model, x, torch.zeros_like(mask), CLASSES, strategy)
    assert not found.any()
    seen = gradcam.looks(found, torch.zeros_like(mask))
    assert seen.inside.isnan().all() and not seen.evidence.any() and not seen.area.any()


@pytest.mark.parametrize("kind", SMALL)
def test_late_masked_models_lie_inside_by_construction(kind: str) -> None:
    model = made(kind)
    x, mask = drawn(model)
    strategy = Strategy("late", pooling="fg")
    assert gradcam.by_construction(model, strategy)
    assert not gradcam.by_construction(model, Strategy())
    found = gradcam.maps(model, x, mask, CLASSES, strategy)
    keep = masking.cells(mask, tuple(found.shape[-2:]), strategy.share)[:, 0]
    assert not (found * (1 - keep)).any()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_frozen_weights_have_maps_too() -> None:
    model = made("resnet")
    x, mask = drawn(model)
    trained = gradcam.maps(model, x, mask, CLASSES, Strategy())
    assert torch.equal(gradcam.maps(model.requires_grad_(False), x, mask, CLASSES, Strategy()), trained)


def test_input_gradients_of_early_masking_are_inside() -> None:
    model = made("vit")
    x, mask = drawn(model)
    masked = masking.early(x, mask, "black", model.cfg.mean, model.cfg.std)
    early = gradcam.looks(gradcam.input_gradients(model, masked, mask, CLASSES, Strategy("early")), mask)
    assert early.inside.tolist() == [1.0, 1.0]
    none = gradcam.looks(gradcam.input_gradients(model, x, mask, CLASSES, Strategy()), mask)
    assert none.inside.max() < 1


def test_looks_of_drawn_maps() -> None:
    mask = torch.zeros(3, 1, 8, 8)
    mask[:, :, :4] = 1
    found = torch.zeros(3, 8, 8)
    found[0, 1, 1], found[0, 6, 6] = 3, 1  # three quarters inside, the highest there
    found[1, 6, 6] = 2
    looks = gradcam.looks(found, mask)
    assert looks.inside[:2].tolist() == [0.75, 0.0]
    assert looks.inside[2].isnan()
    assert looks.hit.tolist() == [True, False, False]
    assert looks.evidence.tolist() == [True, True, False]
    assert looks.without_evidence == pytest.approx(1 / 3)
    assert looks.area.tolist() == [0.5, 0.5, 0.5]


def test_a_mask_a_pixel_off_changes_the_share() -> None:
    mask = torch.zeros(1, 1, 16, 16)
    mask[:, :, 4:12, 4:12] = 1
    found = mask[:, 0].clone()  # a map that is the mask: all of it is inside
    assert gradcam.looks(found, mask).inside.item() == 1
    for step, axis in ((1, 2), (-1, 2), (1, 3), (-1, 3)):
        assert gradcam.looks(found, mask.roll(step, axis)).inside.item() == pytest.approx(7 / 8)


def test_maps_are_brought_to_the_masks_size_without_an_offset() -> None:
    """Mirrored maps over mirrored masks have the same shares: half a cell's offset would show."""
    generator = torch.Generator().manual_seed(0)
    found = torch.rand(4, 7, 7, generator=generator)
    mask = torch.zeros(4, 1, 56, 56)
    mask[:, :, 5:31, 11:40] = 1
    seen = gradcam.looks(found, mask)
    for axis in (1, 2):
        mirrored = gradcam.looks(found.flip(axis), mask.flip(axis + 1))
        assert torch.allclose(mirrored.inside, seen.inside, atol=1e-12)
        assert torch.equal(mirrored.hit, seen.hit)
    one = torch.zeros(1, 7, 7)
    one[0, 3, 3] = 1  # the middle cell, the middle of the image
    middle = torch.zeros(1, 1, 56, 56)
    middle[:, :, 28 - 12 : 28 + 12, 28 - 12 : 28 + 12] = 1
    assert gradcam.looks(one, middle).inside.item() == pytest.approx(1)
