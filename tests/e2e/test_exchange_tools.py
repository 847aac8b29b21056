"""Files for other tools, read and written by the tools themselves: the same pixels, and nothing lost on the way back.

Each tool lies in a folder of its own, made with `pip install --target FOLDER TOOL`, because their requirements exclude
each other; the variables below name them. FiftyOne also needs a MongoDB server.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mending import KEY, OTHER, change, disc, made, outcomes, rows

from fgfast import ops
from fgfast.pipeline.exchange import Taking, bring_back, export
from fgfast.pipeline.mending import Mender

pytestmark = pytest.mark.full

DATUMARO = "FGFAST_TEST_DATUMARO"
LABEL_STUDIO = "FGFAST_TEST_LABEL_STUDIO"
FIFTYONE = "FGFAST_TEST_FIFTYONE"
# mongodb://127.0.0.1:27017
MONGODB = "FGFAST_TEST_MONGODB"

# Reads argv[1], writes each mask that it finds to argv[2] as an array, and the whole to argv[3] with its own writer.
_DATUMARO = """
import sys, numpy as np, datumaro as dm
source, masks, back, kind = sys.argv[1:]
data = dm.Dataset.import_from(source, kind)
np.savez(masks, **{item.id + ".jpg": a.image > 0 for item in data for a in item.annotations if a.type.name == "mask"})
if kind == "coco_instances":
    data.export(back, kind, save_media=False, segmentation_mode="mask")
    data.export(back + "_polygons", kind, save_media=False)
"""
_LABEL_STUDIO = """
import sys, json, numpy as np
from label_studio_sdk.converter import brush
from label_studio_sdk.label_interface import LabelInterface
source, masks, back = sys.argv[1:]
tasks, found = json.load(open(source)), {}
view = '<View><Image name="image" value="$image"/><BrushLabels name="mask" toName="image">'
view += '<Label value="001.Auk"/><Label value="002.Jay"/></BrushLabels></View>'
for task in tasks:
    (annotation,) = task["annotations"]
    assert LabelInterface(view).validate_annotation(annotation)
    (result,) = annotation["result"]
    size = result["original_height"], result["original_width"]
    mask = brush.decode_rle(result["value"]["rle"]).reshape(*size, 4)[:, :, 3]
    found[task["data"]["fgfast_key"]] = mask > 0
    own = brush.mask2rle(mask)
    assert own == result["value"]["rle"]
    result["value"]["rle"] = own
np.savez(masks, **found)
json.dump(tasks, open(back, "w"))
"""
_FIFTYONE = """
import sys, numpy as np, fiftyone as fo
source, masks, back = sys.argv[1:]
data, found = fo.Dataset.from_json(source, name=sys.argv[2], rel_dir="/images"), {}
for sample in data:
    (one,) = sample.foreground.detections
    size = sample.metadata.width, sample.metadata.height
    found[sample.fgfast_key] = one.to_segmentation(frame_size=size).mask > 0
np.savez(masks, **found)
data.write_json(back, rel_dir="/images")
data.delete()
"""


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output, of crops, with masks that have holes, parts and single pixels in corners."""
    out = made(tmp_path_factory.mktemp("tools"), crop="square")
    bits = disc()
    bits[0, 0] = bits[-1, -1] = True
    with Mender.open(out) as mender:
        asked = [change(verdict="mask", bits=bits), change(OTHER, verdict="mask", bits=disc(32))]
        outcomes(mender.decide(asked, "a"))
        mender.finish()
    return out


def folder(variable: str) -> str:
    if not (found := os.environ.get(variable)):
        pytest.skip(f"{variable} names no folder that the tool was installed to with pip install --target")
    return found


def run(variable: str, script: str, tmp_path: Path, *arguments: Path | str, **more: str) -> None:
    """Run a script with a tool's own packages alone."""
    environment = {**os.environ, "PYTHONPATH": folder(variable), "HOME": str(tmp_path / "home"), **more}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def same_masks(file: Path, out: Path) -> None:
    """Check that a tool read exactly the pixels of a run."""
    with np.load(file) as found:
        masks = {key: ops.rle_encode(found[key]) for key in found.files}
    assert masks == {key: row[4] for key, row in rows(out).items()}


def comes_back(out: Path, file: Path) -> None:
    """Check that a tool's file is the run's, and that it kept the state: nothing is left where the run has changed."""
    found = bring_back(out, file, Taking(dry_run=True))
    assert not found.changed and not found.left and found.unchanged == len(rows(out))


def with_images(out: Path, folder: Path) -> Path:
    shutil.copytree(out.parent / "data/cub/CUB_200_2011/images", folder / "images")
    return folder


def test_datumaro_reads_and_writes_coco(decided: Path, tmp_path: Path) -> None:
    folder(DATUMARO)
    source, back, masks = tmp_path / "coco", tmp_path / "back", tmp_path / "masks.npz"
    with_images(decided, source / "images/default")
    (source / "annotations").mkdir()
    export(decided, "coco", source / "annotations/instances_default.json")
    run(DATUMARO, _DATUMARO, tmp_path, source, masks, back, "coco_instances")
    same_masks(masks, decided)
    written = back / "annotations/instances_default.json"
    comes_back(decided, written)
    content = json.loads(written.read_text())
    assert all(one["attributes"]["fgfast_state"] for one in content["annotations"])
    polygons = tmp_path / "back_polygons/annotations/instances_default.json"
    refused = bring_back(decided, polygons, Taking(dry_run=True))
    assert "--lossy" in refused.left[KEY]
    lossy = bring_back(decided, polygons, Taking(dry_run=True, lossy=True))
    assert set(lossy.lossy) == set(lossy.changed) >= {KEY} and all(0.5 < value < 1 for value in lossy.lossy.values())


def test_datumaro_reads_cvat(decided: Path, tmp_path: Path) -> None:
    folder(DATUMARO)
    source, masks = tmp_path / "cvat", tmp_path / "masks.npz"
    with_images(decided, source / "images")
    export(decided, "cvat", source / "annotations.xml")
    run(DATUMARO, _DATUMARO, tmp_path, source, masks, tmp_path / "back", "cvat")
    same_masks(masks, decided)


def test_label_studio_reads_and_writes_brushes(decided: Path, tmp_path: Path) -> None:
    file, masks, back = tmp_path / "tasks.json", tmp_path / "masks.npz", tmp_path / "back.json"
    export(decided, "label-studio", file)
    run(LABEL_STUDIO, _LABEL_STUDIO, tmp_path, file, masks, back)
    same_masks(masks, decided)
    comes_back(decided, back)


def test_fiftyone_reads_and_writes_detections(decided: Path, tmp_path: Path) -> None:
    if not (server := os.environ.get(MONGODB)):
        pytest.skip(f"{MONGODB} names no MongoDB server, as mongodb://127.0.0.1:27017")
    file, masks, back = tmp_path / "masks.json", tmp_path / "masks.npz", tmp_path / "back.json"
    export(decided, "fiftyone", file)
    more = {"FIFTYONE_DATABASE_URI": server, "FIFTYONE_DO_NOT_TRACK": "1", "FIFTYONE_DATABASE_VALIDATION": "false"}
    run(FIFTYONE, _FIFTYONE, tmp_path, file, masks, back, **more)
    same_masks(masks, decided)
    comes_back(decided, back)
