"""All decoders give one file the same image, or the same error; a bad file does not affect its neighbours."""

from __future__ import annotations

import csv
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from types import SimpleNamespace

import numpy as np
import odd_images
import pytest
import simplejpeg
from layouts import SHARED

from fgfast.errors import DeviceFailedError, MissingExtraError, SampleError, UnknownNameError, UsageError
from fgfast.io import batched, decoders
from fgfast.io.batched import BatchedDecoder
from fgfast.io.decode import decode
from fgfast.io.decoders import CpuDecoder, Decoder, available, decoder
from fgfast.records import Image, UInt8

# Pillow warns about damaged metadata, torchvision about its deprecated decoders.
pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.filterwarnings("ignore:.*TorchCodec")]

ODD_FILES = SHARED / "oddfiles"
PLAIN, ODD, DAMAGED = odd_images.plain(), odd_images.odd(), odd_images.damaged()

# Largest difference from the CPU decoder's pixels, in grey levels. DALI on the CPU is libjpeg-turbo with the exact
# transform: 0 was measured. GPU decoders have not been measured yet (None): their chroma may be far off on edges, so
# only the mean is bounded, at a fraction of what wrong colours or a wrong orientation would give.
LARGEST = {"dali_cpu": 0, "dali": None, "nvjpeg": None, "batched": 0}
MEAN = 8.0
# Decoders whose library is libjpeg-turbo, so that damage that they overlook gives the same pixels, too.
ON_CPU = ("batched", "dali_cpu")


class FakeLibrary:
    """A stand-in for a GPU's library: simplejpeg, which refuses all files of a batch for one that it warns about.

    Attributes:
        batches: number of files of each call.
        works: False simulates a failed device.
    """

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.works = True
        self.busy = threading.Lock()

    def decode(self, files: Sequence[UInt8]) -> list[UInt8]:
        assert self.busy.acquire(blocking=False), "two threads in the library at once"
        try:
            self.batches.append(len(files))
            if not self.works:
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            return [np.asarray(simplejpeg.decode_jpeg(file.tobytes(), "RGB")) for file in files]
        finally:
            self.busy.release()

    def close(self) -> None:
        self.works = False


@pytest.fixture(scope="module", params=["batched", "dali_cpu", "dali", "nvjpeg"])
def ours(request: pytest.FixtureRequest) -> Iterator[Decoder]:
    """Each decoder that works on this machine, except the CPU's."""
    if request.param == "batched":
        made: Decoder = BatchedDecoder("batched", FakeLibrary(), 4, CpuDecoder())
    else:
        try:
            made = decoder(request.param, "cpu" if request.param == "dali_cpu" else "cuda:0", batch=4)
        except UsageError as error:
            pytest.skip(f"{request.param}: {str(error)[:60]} ...")
    yield made
    made.close()


def reference(data: bytes, turn: bool, name: str = "x.jpg") -> Image | SampleError:
    try:
        return decode(data, name, turn)
    except SampleError as error:
        return error


def assert_same(found: Image | SampleError, wanted: Image | SampleError, name: str, largest: int | None) -> None:
    if isinstance(wanted, SampleError):
        assert isinstance(found, SampleError), f"{name}: decoded, though {wanted}"
        assert (type(found), found.reason, found.detail) == (type(wanted), wanted.reason, wanted.detail)
        return
    assert isinstance(found, Image), f"{name}: {found}"
    assert found.pixels.shape == wanted.pixels.shape, name
    difference = np.abs(found.pixels.astype(int) - wanted.pixels)
    assert difference.mean() <= MEAN, name
    assert largest is None or difference.max() <= largest, name


@pytest.mark.parametrize("turn", [False, True], ids=["stored", "turned"])
def test_one_file_has_one_outcome(ours: Decoder, turn: bool) -> None:
    for name, data in (PLAIN | ODD).items():
        (found,) = ours([data], ["x.jpg"], turn)
        # Every decoder leaves odd files to the CPU.
        assert_same(found, reference(data, turn), name, 0 if name in ODD else LARGEST[ours.name])


def test_plain_jpegs_are_the_librarys_and_odd_ones_are_not(ours: Decoder) -> None:
    assert isinstance(ours, BatchedDecoder)
    before = ours.counts.copy()
    files = [*PLAIN.values(), *ODD.values()]
    ours(files, ["x.jpg"] * len(files), True)
    assert ours.counts - before == {"batched": len(PLAIN), "odd": len(ODD)}


@pytest.mark.parametrize("turn", [False, True], ids=["stored", "turned"])
def test_a_bad_file_does_not_affect_its_neighbours(ours: Decoder, turn: bool) -> None:
    good = list(PLAIN.values())[:7]
    names = [f"{n}.jpg" for n in range(8)]
    alone = ours(good, names[:7], turn)
    for name in (*DAMAGED, "half", "no bytes", "PNG bomb"):
        bad = (ODD | DAMAGED)[name]
        found = ours([*good[:3], bad, *good[3:]], names, turn)
        if name in ODD or ours.name in ON_CPU:
            assert_same(found[3], reference(bad, turn, "3.jpg"), name, 0)
        for mine, other in zip(found[:3] + found[4:], alone, strict=True):
            assert isinstance(mine, Image) and isinstance(other, Image)
            np.testing.assert_array_equal(mine.pixels, other.pixels)


def test_what_the_library_refuses_alone_is_counted(ours: Decoder) -> None:
    assert isinstance(ours, BatchedDecoder)
    if ours.name not in ON_CPU:
        pytest.skip("a GPU's library may overlook the damage")
    before = ours.counts.copy()
    ours([PLAIN["grey"], DAMAGED["senseless tables"], PLAIN["4:4:4"]], ["x"] * 3, False)
    assert ours.counts - before == {"batched": 2, "refused": 1}


def test_mutants_have_one_outcome(ours: Decoder) -> None:
    if ours.name not in ON_CPU:
        pytest.skip("a GPU's library shows damage that it overlooks in its own way")
    files = list(odd_images.mutants(seed=0, count=200))
    for turn in (False, True):
        for n, found in enumerate(ours(files, ["x.jpg"] * len(files), turn)):
            assert_same(found, reference(files[n], turn), f"mutant {n}", 0)


@pytest.mark.skipif(not ODD_FILES.is_dir(), reason=f"{ODD_FILES} is not here")
def test_odd_files_have_one_outcome(ours: Decoder) -> None:
    rows = list(csv.DictReader((ODD_FILES / "index.csv").open()))
    files = [(ODD_FILES / row["file"]).read_bytes() for row in rows]
    for turn in (False, True):
        for row, data, found in zip(rows, files, ours(files, ["x.jpg"] * len(files), turn), strict=True):
            wanted = reference(data, turn)
            if ours.name in ON_CPU or "damaged" not in row["kind"]:
                assert_same(found, wanted, row["file"], LARGEST[ours.name])


def test_any_number_of_files_keeps_its_order(ours: Decoder) -> None:
    assert ours([], [], False) == []
    names = [name for name in PLAIN if not name.startswith("EXIF")] * 2
    found = ours([PLAIN[name] for name in names], names, False)
    for name, image in zip(names, found, strict=True):
        assert_same(image, reference(PLAIN[name], False), name, LARGEST[ours.name])


def test_threads_may_share_a_decoder(ours: Decoder) -> None:
    files = [PLAIN["4:2:0"], ODD["PNG"], DAMAGED["senseless tables"], PLAIN["grey"]]
    found: list[list[Image | SampleError]] = []
    threads = [threading.Thread(target=lambda: found.append(ours(files, ["x.jpg"] * 4, False))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for results in found:
        assert_same(results[0], reference(files[0], False), "first", LARGEST[ours.name])
        assert_same(results[1], reference(files[1], False), "second", 0)


def test_the_cpus_threads_keep_the_order() -> None:
    files = [*PLAIN.values(), *ODD.values()]
    pool = decoder("cpu", threads=3)
    for found, data in zip(pool(files, ["x.jpg"] * len(files), True), files, strict=True):
        assert_same(found, reference(data, True), "x", 0)
    pool.close()


def test_batches_are_bounded_in_files_and_in_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    library = FakeLibrary()
    small = BatchedDecoder("fake", library, 5, CpuDecoder())
    small([PLAIN["4:2:0"]] * 12, ["x"] * 12, False)
    assert library.batches == [5, 5, 2]
    width, height = odd_images.SIZE
    monkeypatch.setattr(batched, "BATCH_PIXELS", 3 * width * height)
    library.batches.clear()
    small([PLAIN["4:2:0"], PLAIN["1x1"], *[PLAIN["4:2:0"]] * 3], ["x"] * 5, False)
    assert library.batches == [3, 2]


def test_a_device_that_fails_is_an_error_and_not_a_slow_run() -> None:
    library = FakeLibrary()
    broken = BatchedDecoder("fake", library, 4, CpuDecoder())
    library.works = False
    with pytest.raises(DeviceFailedError, match=r"fake no longer works.*illegal memory access.*--decoder cpu"):
        broken([PLAIN["4:2:0"]] * 3, ["x"] * 3, False)
    # A file that never reaches the device still has its outcome.
    assert isinstance(broken([ODD["PNG"]], ["x"], False)[0], Image)


def test_images_of_a_wrong_size_are_not_believed() -> None:
    library = FakeLibrary()
    library.decode = lambda files: [np.zeros((5, 5, 3), np.uint8) for _ in files]  # type: ignore[method-assign]
    wrong = BatchedDecoder("fake", library, 4, CpuDecoder())
    (found,) = wrong([PLAIN["4:2:0"]], ["x"], False)
    assert_same(found, reference(PLAIN["4:2:0"], False), "x", 0)
    assert wrong.counts == {"refused": 1, "batched": 0, "odd": 0}


def test_nvjpeg_hands_on_what_torchvision_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    """nvJPEG's decoder is tested against a fake of torchvision on a GPU."""
    torch = pytest.importorskip("torch")

    def decode_jpeg(files: list, mode: str, device: str) -> list:
        assert (mode, device) == ("RGB", "cuda:1") and all(file.dtype == torch.uint8 for file in files)
        pixels = [simplejpeg.decode_jpeg(file.numpy().tobytes(), "RGB") for file in files]
        return [torch.from_numpy(p).permute(2, 0, 1) for p in pixels]

    fake = SimpleNamespace(decode_jpeg=decode_jpeg, ImageReadMode=SimpleNamespace(RGB="RGB"))
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(io=fake))
    monkeypatch.setitem(sys.modules, "torchvision.io", fake)
    monkeypatch.setattr(decoders, "_installed", lambda package: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    files = [PLAIN["4:2:0"], DAMAGED["senseless tables"], ODD["CMYK"], PLAIN["grey"]]
    made = decoder("nvjpeg", "cuda:1")
    for data, found in zip(files, made(files, ["x.jpg"] * 4, False), strict=True):
        assert_same(found, reference(data, False), "x", 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="torch built for CUDA"):
        decoder("nvjpeg", "cuda:1")


@pytest.mark.parametrize(
    ("name", "device", "error", "message"),
    [
        ("turbo", "cpu", UnknownNameError, "dali_cpu"),
        ("auto", "cpu", UsageError, "measurement"),
        ("dali", "cpu", UsageError, "CUDA device, not cpu"),
        ("nvjpeg", "mps", UsageError, "CUDA device, not mps"),
    ],
)
def test_impossible_decoders_are_refused(name: str, device: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        decoder(name, device)
    with pytest.raises(UsageError, match="not 0 and None"):
        decoder("cpu", threads=0)


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "find_spec", lambda package: None)
    assert available("cuda:0") == ("cpu",)
    for name in ("dali", "dali_cpu", "nvjpeg"):
        with pytest.raises(MissingExtraError, match=rf"decoder {name} needs .*pip install"):
            decoder(name, "cuda:0")


def test_gpus_have_their_decoders_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "_installed", lambda package: True)
    assert available("cuda:3") == ("dali", "nvjpeg", "dali_cpu", "cpu")
    assert available("cpu") == ("dali_cpu", "cpu")
    assert all(name in decoders.DECODERS for name in available("cuda"))


def test_the_cpu_decoder_needs_no_heavy_package() -> None:
    program = (
        "import sys; from fgfast.io.decoders import available, decoder; decoder('cpu', threads=2); "
        "available('cuda:0'); print({'torch', 'torchvision', 'nvidia.dali'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
