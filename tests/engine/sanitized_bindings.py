"""Calls every binding of fgfast._native with made arguments: right ones, nearly right ones, hostile ones.

A script, for test_sanitized.py, which runs it with a module that ends the process with a report at the first read or
write beside an array. Arguments: the module's file, the number of examples, the binding, or "together" for large images
from several threads. It prints JSON: how many calls were taken and how many refused, and the seconds.

Right arguments must be taken; what is taken must give the NumPy reference's result; what is refused must be refused by
a TypeError or a ValueError that names an argument.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from engine.hostile_arguments import SEEDS, SIDES, content, spoil
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fgfast
from fgfast.ops import reference
from fgfast.ops.reference_attention import bf16_to_float, float_to_bf16
from fgfast.ops.reference_resize import _resize_axis

Given = dict[str, Any]


class Binding(NamedTuple):
    """Right arguments from hypothesis's `draw`, and the reference: it asserts that the result is right."""

    arguments: Callable[[Any], Given]
    check: Callable[[Given, Any], None]


def image(draw: Any, channels: int) -> Given:
    (height, width), (h, w), seed = draw(st.tuples(SIDES, SIDES)), draw(st.tuples(SIDES, SIDES)), draw(SEEDS)
    x0, y0 = draw(st.tuples(st.integers(-80, 80), st.integers(-80, 80)))
    return {
        "pixels": content((height, width, 3), np.uint8, seed),
        "bits": content((height, width), np.bool_, seed),
        "x0": x0,
        "y0": y0,
        "out": np.full((h, w, channels), 7, np.uint8),
    }


def composite(draw: Any) -> Given:
    made = image(draw, 3)
    h, w, _ = made["out"].shape
    return {**made, "background": content((1 if draw(st.booleans()) else h, w, 3), np.uint8, draw(SEEDS))}


def check_composite(made: Given, _: Any) -> None:
    out, x0, y0 = made["out"], int(made["x0"]), int(made["y0"])
    if not out.size:
        return
    ground = np.broadcast_to(made["background"], out.shape) if "background" in made else None
    window = (x0, y0, x0 + out.shape[1], y0 + out.shape[0])
    bits = made["bits"].view(np.uint8) != 0
    np.testing.assert_array_equal(out, reference.composite(made["pixels"], bits, ground, window, ground is None))


def rle_encode(draw: Any) -> Given:
    return {"bits": content((draw(SIDES), draw(SIDES)), np.bool_, draw(SEEDS))}


def check_rle_encode(made: Given, counts: bytes) -> None:
    bits = made["bits"]
    assert counts == (reference.rle_encode(bits.view(np.uint8) != 0) if bits.size else b"0")


def rle_decode(draw: Any) -> Given:
    bits = content((draw(SIDES), draw(SIDES)), np.bool_, draw(SEEDS))
    return {"counts": reference.rle_encode(bits), "height": bits.shape[0], "width": bits.shape[1]}


def check_rle_decode(made: Given, bits: Any) -> None:
    wanted = reference.rle_decode(made["counts"], int(made["height"]), int(made["width"]))
    np.testing.assert_array_equal(bits, wanted)


def mask_post(draw: Any) -> Given:
    count, low, seed = draw(st.integers(0, 3)), max(draw(SIDES), 1), draw(SEEDS)
    height, width, side = max(draw(SIDES), 1), max(draw(SIDES), 1), draw(st.integers(1, 150))
    return {
        "logits": content((count, low, low), np.float32, seed, hostile=draw(st.booleans())),
        "side": side,
        "resized_height": draw(st.integers(1, side)),
        "resized_width": draw(st.integers(1, side)),
        "bits": np.ones((count, height, width), np.bool_),
        "facts": np.full((count, 7), -9, np.int64),
        "threads": draw(st.sampled_from([1, 3, 2**31 - 1])),
    }


def check_mask_post(made: Given, _: Any) -> None:
    bits, facts, side = made["bits"], made["facts"], int(made["side"])
    if side > 200 or not len(bits):  # the reference makes the whole square
        return
    resized = int(made["resized_height"]), int(made["resized_width"])
    with np.errstate(all="ignore"):
        wanted = reference.mask_post(made["logits"][:, None], bits.shape[1:], resized, side)
    np.testing.assert_array_equal(bits, wanted.bits[:, 0])
    np.testing.assert_array_equal(facts[:, :4], wanted.boxes[:, 0])
    np.testing.assert_array_equal(facts[:, 4], wanted.areas[:, 0])


def nms(draw: Any) -> Given:
    count, seed, hostile = draw(SIDES), draw(SEEDS), draw(st.booleans())
    return {
        "boxes": content((count, 4), np.float32, seed, hostile),
        "scores": content((count,), np.float32, seed, hostile),
        "classes": content((count,), np.int64, seed, hostile) if draw(st.booleans()) else None,
        "threshold": draw(st.sampled_from([0.0, 0.3, 0.5, 1.0])),
        "limit": draw(st.sampled_from([0, 1, 5, 100, 2**63 - 1])),
    }


def check_nms(made: Given, kept: Any) -> None:
    with np.errstate(all="ignore"):
        wanted = reference.nms(**{**made, "threshold": float(made["threshold"]), "limit": int(made["limit"])})
    np.testing.assert_array_equal(kept, wanted)


def nms_ordered(draw: Any) -> Given:
    made = nms(draw)
    count = len(made["boxes"])
    return {
        "boxes": made["boxes"],
        "order": np.random.default_rng(draw(SEEDS)).permutation(count),
        "classes": content((count,), np.int64, draw(SEEDS)),
        "threshold": made["threshold"],
        "workspace": np.empty((count, (count + 63) // 64), np.int64),
        "kept": np.full(min(made["limit"], count), -9, np.int64),
        "kept_count": np.full(1, -9, np.int64),
    }


def check_nms_ordered(made: Given, _: Any) -> None:
    order, kept = made["order"], made["kept"]
    assert not len(order) or 0 <= order.min() <= order.max() < len(order)
    scores = -np.arange(len(order), dtype=np.float32)
    with np.errstate(all="ignore"):
        threshold, classes = float(made["threshold"]), made["classes"][order]
        wanted = reference.nms(made["boxes"][order], scores, threshold, len(kept), classes)
    np.testing.assert_array_equal(kept[: made["kept_count"][0]], order[wanted])


def resize(draw: Any) -> Given:
    (height, width), (h, w) = draw(st.tuples(SIDES, SIDES)), draw(st.tuples(SIDES, SIDES))
    canvas = np.full((max(h, 1), max(w, 1) + draw(st.sampled_from([0, 0, 4])), 3), 7, np.uint8)
    return {
        "pixels": content((max(height, 1), max(width, 1), 3), np.uint8, draw(SEEDS)),
        "out": canvas[:, : max(w, 1)],
        "down_first": draw(st.booleans()),
        "threads": draw(st.sampled_from([1, 3, 2**31 - 1])),
    }


def check_resize(made: Given, _: Any) -> None:
    wanted, out = made["pixels"], made["out"]
    for axis in (0, 1) if made["down_first"] else (1, 0):
        wanted = _resize_axis(wanted, axis, out.shape[axis])
    np.testing.assert_array_equal(out, wanted)


def attend(draw: Any, dtype: Any = np.float32) -> Given:
    batch, heads, size = draw(st.integers(0, 2)), draw(st.integers(0, 2)), draw(st.sampled_from([16, 16, 32, 20, 0]))
    side, windows, seed = draw(st.integers(1, 9)), draw(st.integers(0, 2)), draw(SEEDS)
    rng = np.random.default_rng(seed)
    places = windows * side * side
    tokens = int(rng.integers(0, places + 1))
    token_at = np.full(places, tokens, np.int64)
    token_at[rng.permutation(places)[:tokens]] = rng.permutation(tokens)
    line, table, row = (batch, tokens, heads, size), (2 * side - 1, size), (heads, size)
    tables = {name: content(table, np.float32, seed) for name in ("rel_pos_h", "rel_pos_w")}
    shapes = {"q": line, "k": line, "v": line, "padding_k": row}
    return {
        **{name: content(shape, dtype, seed) for name, shape in shapes.items()},
        **tables,
        "token_at": token_at.reshape(windows, side * side),
        "padding_v": content(row, dtype, seed),
        "side": side,
        "threads": draw(st.sampled_from([1, 2, 2**31 - 1])),
        "out": np.zeros(line, dtype),
    }


def attend_bf16(draw: Any) -> Given:
    made, any_bits, rng = attend(draw, np.uint16), draw(st.booleans()), np.random.default_rng(draw(SEEDS))
    for name in ("q", "k", "v", "padding_k", "padding_v"):  # any bits: most of them huge, tiny or no number
        shape = made[name].shape
        bits, near = rng.integers(0, 2**16, shape, np.uint16), rng.standard_normal(shape, np.float32)
        made[name] = bits if any_bits else float_to_bf16(near)
    for name in ("rel_pos_h", "rel_pos_w"):
        made[name] = made[name] * np.float32(0.08)  # 0.3, as in test_attention_bf16
    return made


def check_attend_bf16(made: Given, _: Any) -> None:
    values = [bf16_to_float(made[name]) for name in ("q", "k", "v", "padding_k", "padding_v", "out")]
    tables = made["rel_pos_h"], made["rel_pos_w"]
    if all(np.isfinite(part).all() and np.abs(part).max(initial=0) < 6 for part in (*values[:-1], *tables)):
        q, k, v, no_key, no_value, out = values
        wanted = reference.attention(q, k, v, tables, made["token_at"], (no_key, no_value))
        np.testing.assert_allclose(out, wanted, rtol=0, atol=0.05)


def attend_windows(draw: Any) -> Given:
    count, heads, size = draw(st.integers(0, 3)), draw(st.integers(0, 2)), draw(st.sampled_from([16, 32, 80, 20, 0]))
    tokens, rng = draw(st.sampled_from([0, 1, 16, 33, 49, 64, 65])), np.random.default_rng(draw(SEEDS))
    values = rng.standard_normal((count, tokens, 3, heads, size), np.float32)
    any_bits = rng.integers(0, 2**16, values.shape, np.uint16)
    return {
        "qkv": any_bits if draw(st.booleans()) else float_to_bf16(values),
        "bias": content((heads, tokens, tokens), np.float32, draw(SEEDS)),
        "mask": content((count, tokens, tokens), np.float32, draw(SEEDS)) if draw(st.booleans()) else None,
        "threads": draw(st.sampled_from([1, 2, 2**31 - 1])),
        "out": np.zeros((count, tokens, heads, size), np.uint16),
    }


def check_attend_windows(made: Given, _: Any) -> None:
    values = bf16_to_float(made["qkv"])
    floats = [values, *(made[name] for name in ("bias", "mask") if made[name] is not None)]
    if made["qkv"].size and all(np.isfinite(part).all() and np.abs(part).max() < 30 for part in floats):
        wanted = bf16_to_float(reference.window_attention(made["qkv"], made["bias"], made["mask"]))
        np.testing.assert_allclose(bf16_to_float(made["out"]), wanted, rtol=0, atol=0.01 * np.abs(values).max())


def check_attend(made: Given, _: Any) -> None:
    given_ = {name: made[name] for name in ("q", "k", "v", "token_at")}
    pairs = {"rel_pos": (made["rel_pos_h"], made["rel_pos_w"]), "padding": (made["padding_k"], made["padding_v"])}
    floats = [array for name, array in made.items() if name != "out" and getattr(array, "dtype", None) == np.float32]
    if all(np.isfinite(array).all() and np.abs(array).max(initial=0) < 30 for array in floats):
        np.testing.assert_allclose(made["out"], reference.attention(**given_, **pairs), rtol=0, atol=1e-3)


def smaller(draw: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    """The size of an image, and one that is not larger."""
    height, width = (max(side, 1) for side in draw(st.tuples(SIDES, SIDES)))
    return (height, width), (draw(st.integers(1, height)), draw(st.integers(1, width)))


def area_average(draw: Any) -> Given:
    before, after = smaller(draw)
    return {"pixels": content((*before, 3), np.uint8, draw(SEEDS)), "out": np.full((*after, 3), 7, np.uint8)}


def check_area_average(made: Given, _: Any) -> None:
    np.testing.assert_array_equal(made["out"], reference.area_average(made["pixels"], made["out"].shape[:2]))


def area_coverage(draw: Any) -> Given:
    before, after = smaller(draw)
    return {"bits": content(before, np.bool_, draw(SEEDS)), "out": np.full(after, 7, np.uint8)}


def check_area_coverage(made: Given, _: Any) -> None:
    np.testing.assert_array_equal(made["out"], reference.area_coverage(made["bits"], made["out"].shape))


def colour_contrast(draw: Any) -> Given:
    (height, width), _ = smaller(draw)
    lab, bits = content((height, width, 3), np.uint8, draw(SEEDS)), content((height, width), np.bool_, draw(SEEDS))
    return {"lab": lab // draw(st.sampled_from([1, 7])), "bits": bits, "out": np.zeros(4)}


def check_colour_contrast(made: Given, _: Any) -> None:
    np.testing.assert_array_equal(made["out"], reference.colour_contrast(made["lab"], made["bits"]))


def mask_parts(draw: Any) -> Given:
    return {"bits": content(draw(st.tuples(SIDES, SIDES)), np.bool_, draw(SEEDS), True)}


def check_mask_parts(made: Given, result: Any) -> None:
    areas, enclosed = reference.mask_parts(made["bits"])
    np.testing.assert_array_equal(result[0], areas)
    assert result[1] == enclosed


def outline_edges(draw: Any) -> Given:
    size, _ = smaller(draw)
    bits, some = (content(size, np.bool_, draw(SEEDS)) for _ in range(2))
    outline = some & bits
    lab, out = content((*size, 3), np.uint8, draw(SEEDS)), np.zeros((2, np.count_nonzero(outline)), np.int64)
    return {"lab": lab, "bits": bits, "outline": outline, "out": out}


def check_outline_edges(made: Given, result: Any) -> None:
    wanted = reference.outline_edges(made["lab"], made["bits"], made["outline"])
    np.testing.assert_array_equal(made["out"], np.stack(wanted[:2]))
    assert result == wanted[2]


BINDINGS = {
    "composite": Binding(composite, check_composite),
    "composite_alpha": Binding(lambda draw: image(draw, 4), check_composite),
    "rle_encode": Binding(rle_encode, check_rle_encode),
    "rle_decode": Binding(rle_decode, check_rle_decode),
    "mask_post": Binding(mask_post, check_mask_post),
    "nms": Binding(nms, check_nms),
    "nms_ordered": Binding(nms_ordered, check_nms_ordered),
    "resize": Binding(resize, check_resize),
    "area_average": Binding(area_average, check_area_average),
    "area_coverage": Binding(area_coverage, check_area_coverage),
    "colour_contrast": Binding(colour_contrast, check_colour_contrast),
    "mask_parts": Binding(mask_parts, check_mask_parts),
    "outline_edges": Binding(outline_edges, check_outline_edges),
    "attend": Binding(attend, check_attend),
    "attend_windows": Binding(attend_windows, check_attend_windows),
    "attend_bf16": Binding(attend_bf16, check_attend_bf16),
    "attends_bf16": Binding(lambda draw: {"size": draw(st.integers(0, 99))}, lambda made, result: None),
    "attends": Binding(lambda draw: {"size": draw(st.integers(0, 99))}, lambda made, result: None),
}


def load(path: str) -> Any:
    """The module in this file as fgfast._native."""
    spec = importlib.util.spec_from_file_location("fgfast._native", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["fgfast._native"] = fgfast._native = module  # type: ignore[attr-defined]
    spec.loader.exec_module(module)
    return module


def described(made: Given) -> str:
    """The arguments in short, for the report of a call that does not come back."""
    values = {
        name: f"{value.dtype}{value.shape}{value.strides}" if isinstance(value, np.ndarray) else repr(value)[:200]
        for name, value in made.items()
    }
    return ", ".join(f"{name}={value}" for name, value in values.items())


def call_one(function: Any, name: str, made: Given, spoiled: bool, counts: dict[str, int]) -> None:
    # Written before the call, at the same place each time: the last one is the one that ended the process.
    if LAST:
        os.pwrite(LAST, f"{name}({described(made)})".ljust(4000).encode(), 0)
    binding = BINDINGS[name]
    try:
        result = function(**made)
    except (TypeError, ValueError) as error:
        counts["refused"] += 1
        own = name.startswith("attend") and re.match(
            r"q(kv)? must have (heads of a multiple of 16|at most 64)", str(error)
        )
        if not (spoiled or own) or not re.match(rf"(?:{'|'.join(made)}) |RLE: ", str(error)):
            raise AssertionError(f"{name}({described(made)})") from error
    else:
        counts["taken"] += 1
        binding.check(made, result)


def call_many(module: Any, name: str, examples: int) -> dict[str, Any]:
    """Call a binding with so many sets of arguments, of which a third is right and the rest has one or two spoiled."""
    counts, began = {"taken": 0, "refused": 0}, time.monotonic()

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.data(), st.integers(0, 2), SEEDS)
    def call(data: Any, spoils: int, seed: int) -> None:
        made = BINDINGS[name].arguments(data.draw)
        rng = np.random.default_rng(seed)
        for name_ in rng.permutation(list(made))[:spoils].tolist():
            spoil(made, name_, int(rng.integers(2**32)))
        call_one(getattr(module, name), name, made, spoils > 0, counts)

    call()
    return {**counts, "seconds": round(time.monotonic() - began, 1)}


def call_together(module: Any) -> None:
    """Large images, for which threads are started, from four threads of Python at once: results are the same."""
    pixels, logits = content((1500, 1600, 3), np.uint8, 0), content((1, 64, 64), np.float32, 0)

    def both(threads: int) -> tuple[bytes, bytes, bytes]:
        out, bits, facts = (
            np.empty((1450, 1550, 3), np.uint8),
            np.empty((1, 1450, 1550), np.bool_),
            np.empty((1, 7), np.int64),
        )
        module.resize(pixels, out, False, threads)
        module.mask_post(logits, 256, 240, 256, bits, facts, threads)
        return out.tobytes(), bits.tobytes(), facts.tobytes()

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(both, (1, 2, 3, 2**31 - 1)))) == 1


def main(path: str, examples: str, name: str) -> None:
    module = load(path)
    if name == "together":
        call_together(module)
    else:
        print(json.dumps(call_many(module, name, int(examples))))


LAST = int(os.environ.get("FGFAST_LAST_CALL", "0"))
"""A file descriptor for the last call."""

if __name__ == "__main__":
    main(*sys.argv[1:])
