"""What is dangerous is done in one place, and every other source goes through it: a walk over the sources.

A rule names what is forbidden, the sources where it is at home, and the few calls elsewhere, each with its reason.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("fgfast", "bench", "export")

if not all((ROOT / folder).is_dir() for folder in SOURCES):
    pytest.skip("the sources are not here", allow_module_level=True)


@dataclass(frozen=True)
class Rule:
    """One thing that is done in one place.

    Attributes:
        name: what it is.
        found: whether a call does it.
        home: the sources that may, as POSIX paths or beginnings of such.
        instead: what to call, for the message.
        excepted: (source, function called) -> why it may, too.
    """

    name: str
    found: Callable[[ast.Call], bool]
    home: tuple[str, ...]
    instead: str
    excepted: Mapping[tuple[str, str], str] = field(default_factory=dict)


def called(call: ast.Call) -> str:
    """The function called, as it is written: "os.replace", "open", ".unlink" of something that has no name."""
    function = call.func
    if isinstance(function, ast.Name):
        return function.id
    if not isinstance(function, ast.Attribute):
        return ""
    return f"{function.value.id if isinstance(function.value, ast.Name) else ''}.{function.attr}"


# Of the modules os, shutil, ...: what creates, writes, renames or deletes.
_FUNCTIONS = {
    "os": "open mkdir makedirs remove unlink rmdir removedirs rename renames replace link symlink truncate ftruncate "
    "chmod chown mkfifo mknod utime",
    "shutil": "copy copy2 copyfile copytree copymode copystat move rmtree unpack_archive make_archive chown",
    "np": "save savez savez_compressed savetxt memmap",
    "sqlite3": "connect",
    "onnx": "save save_model",
    "ir": "save",
    "onnx_ir": "save",
    "torch": "save",
    "cv2": "imwrite",
    "logging": "FileHandler",
}
# Of paths, arrays, images, archives, whatever they are called.
_METHODS = (
    "write_text write_bytes mkdir rmdir unlink rename touch symlink_to hardlink_to chmod lchmod tofile savefig save "
    "save_file extractall extract"
)
_NAMES = "FileLock SoftFileLock NamedTemporaryFile TemporaryDirectory TemporaryFile mkstemp mkdtemp"


def writes(call: ast.Call) -> bool:
    """Whether a call creates, writes, renames or deletes a file or folder, as far as its text tells."""
    whole, last = called(call), called(call).rpartition(".")[2]
    module = whole.rpartition(".")[0]
    if module == "tempfile" or (not module and last in _NAMES.split()):
        return True
    if last in _FUNCTIONS.get(module, "").split():
        return True
    if last == "open" and module not in ("os", "webbrowser"):
        return _for_writing(call)
    if last == "replace" and module not in ("os", "dataclasses", ""):
        return len(call.args) == 1 and not call.keywords  # Path.replace; that of texts takes two
    return "." in whole and last in _METHODS.split()


def _for_writing(call: ast.Call) -> bool:
    """Whether an `open`, of a file by name or of a path by itself, is for more than reading."""
    modes = [*call.args[:2], *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
    texts = [mode.value for mode in modes if isinstance(mode, ast.Constant) and isinstance(mode.value, str)]
    return any(re.fullmatch(r"[rwaxbt+]{1,4}", text) and set(text) & set("wax+") for text in texts)


def names(text: str) -> Callable[[ast.Call], bool]:
    """Return whether a call is of one of these functions, or passes one on."""
    known = set(text.split())

    def found(call: ast.Call) -> bool:
        return any(ast.unparse(part) in known for part in (call.func, *call.args, *(k.value for k in call.keywords)))

    return found


prints = names("click.echo click.secho print sys.stdout.write sys.stderr.write logging.StreamHandler")
starts_processes = names(
    "subprocess.Popen subprocess.run subprocess.call subprocess.check_call subprocess.check_output "
    "subprocess.getoutput subprocess.getstatusoutput os.system os.popen os.startfile os.fork os.forkpty "
    "os.posix_spawn os.posix_spawnp pty.spawn multiprocessing.Process multiprocessing.Pool "
    "multiprocessing.get_context ProcessPoolExecutor concurrent.futures.ProcessPoolExecutor "
    "asyncio.create_subprocess_exec asyncio.create_subprocess_shell ctypes.util.find_library find_library "
    "webbrowser.open click.launch click.edit click.echo_via_pager "
    + " ".join(f"os.{name}{kind}{more}" for name in ("exec", "spawn") for kind in "lv" for more in ("", "e", "p", "pe"))
)

opens_images = names(
    "Image.open pillow.open Pillow.open PIL.Image.open cv2.imread cv2.imdecode cv2.VideoCapture imageio.imread"
)
unpickles = names(
    "pickle.load pickle.loads pickle.Unpickler torch.load joblib.load np.load numpy.load dill.load shelve.open"
)


_TABLE = "the in-flight table: memory that a worker shares, by a random name that is gone at once"
_MEMORY = "into memory"
_SCRATCH = "the library opens its files itself, in a folder of writing.scratch_folder"
_PEER = "what others do, which is timed, in a folder of writing.scratch_folder"

RULES = (
    Rule(
        name="writing",
        found=writes,
        home=("fgfast/writing/",),
        instead="fgfast.writing, which follows no link below a Target's root",
        excepted={
            ("fgfast/files.py", "os.open"): "for reading",
            ("fgfast/keyed_notes.py", "os.open"): "for reading",
            ("fgfast/cli/interruption.py", "os.open"): "the null device",
            ("fgfast/child.py", "os.open"): "the null device",
            ("fgfast/io/database.py", "sqlite3.connect"): "SQLite opens its file itself, which writing.held checks",
            ("fgfast/runner/messages.py", "tempfile.mkstemp"): _TABLE,
            ("fgfast/runner/messages.py", "os.ftruncate"): _TABLE,
            ("fgfast/runner/messages.py", "os.open"): _TABLE,
            ("fgfast/runner/messages.py", ".unlink"): _TABLE,
            ("fgfast/runner/messages.py", "self.unlink"): _TABLE,
            ("fgfast/runner/worker.py", "table.unlink"): _TABLE,
            ("fgfast/cli/cut.py", "cutout.save"): "saves itself through fgfast.writing",
            ("fgfast/cli/bench_output.py", "result.save"): "is saved through fgfast.writing",
            ("fgfast/io/encode.py", ".save"): _MEMORY,
            ("fgfast/io/exchange/fiftyone.py", "np.save"): _MEMORY,
            ("fgfast/io/report.py", "image.save"): _MEMORY,
            ("fgfast/datasets/pets.py", "window.save"): _MEMORY,
            ("fgfast/bench/masks.py", ".save"): _MEMORY,
            ("bench/encoders.py", ".save"): _MEMORY,
            ("bench/demo.py", "image.save"): "into a file of writing.replacing",
            ("bench/background_edges.py", "image.save"): "into a file of writing.replacing",
            ("fgfast/figure_files.py", "drawing.savefig"): "into a file of writing.replacing",
            ("fgfast/studies/plots.py", "drawing.savefig"): _MEMORY,
            ("bench/review_trial.py", "drawing.savefig"): "into a file of writing.replacing",
            ("fgfast/models/vocabulary.py", "np.savez"): "into a file of writing.replacing",
            ("fgfast/export/trace.py", "onnx_ir.save"): _SCRATCH,
            ("fgfast/export/quantise_graph.py", "ir.save"): _SCRATCH,
            ("fgfast/export/widen.py", "ir.save"): _SCRATCH,
            ("fgfast/bench/expand.py", ".write_bytes"): _PEER,
            ("fgfast/bench/io.py", ".save"): _PEER,
            ("fgfast/bench/reference.py", ".save"): _PEER,
            ("fgfast/bench/simulate_clock.py", "os.open"): "pipe and memory of the parent process, by /proc",
            ("bench/soak.py", "os.link"): "gives an image many names, in a folder of writing.scratch_folder",
        },
    ),
    Rule(
        name="printing",
        found=prints,
        home=("fgfast/terminal.py",),
        instead="fgfast.terminal, which shows control characters instead of sending them",
    ),
    Rule(
        name="processes",
        found=starts_processes,
        home=("fgfast/processes.py",),
        instead="fgfast.processes, which neither imports nor starts anything from the current folder",
    ),
    Rule(
        name="images",
        found=opens_images,
        home=("fgfast/image_formats.py",),
        instead="fgfast.image_formats.open_image, which takes a list of formats and has a limit of pixels",
        excepted={
            ("fgfast/bench/decoders.py", "cv2.imdecode"): "what others do, which is timed, on images made here",
            ("bench/demo.py", "Image.open"): "images that the demo has just written",
            ("bench/background_edges.py", "Image.open"): "images that the script has just written",
            ("bench/encoders.py", "Image.open"): "images that the script has just encoded",
            ("fgfast/bench/known_photos.py", "cv2.imread"): "sets of photographs that the person at the keyboard names",
            ("bench/quality.py", "cv2.imread"): "sets of photographs that the person at the keyboard names",
        },
    ),
    Rule(
        name="distances",
        found=lambda call: called(call) == "cv2.distanceTransform",
        home=("fgfast/ops/distances.py",),
        instead="fgfast.ops.distances.distances, whose last bit does not depend on where in memory the mask lies",
        excepted={
            ("fgfast/ops/reference_contrast.py", "cv2.distanceTransform"): "the chamfer of the native op, in integers",
        },
    ),
    Rule(
        name="unpickling",
        found=unpickles,
        home=("fgfast/models/files/pickles.py", "fgfast/child.py"),
        instead="JSON, or fgfast.models.files.pickles before torch.load(weights_only=True)",
        excepted={
            ("fgfast/models/files/states.py", "torch.load"): "weights only, after pickles.look_through",
            ("fgfast/models/vocabulary.py", "np.load"): "allow_pickle=False",
            ("fgfast/runner/messages.py", "pickle.load"): "what another process of this run says, by a pipe of ours",
            ("fgfast/runner/messages.py", "pickle.loads"): "what was pickled in the same line",
        },
    ),
)


def sources() -> Iterator[tuple[str, ast.Module]]:
    """Yield the POSIX path and the syntax tree of each source."""
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_there_is_one_way(rule: Rule) -> None:
    astray, used = [], set()
    for source, tree in sources():
        if source.startswith(rule.home):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and rule.found(node):
                place = source, called(node)
                used.add(place)
                if place not in rule.excepted:
                    astray.append(f"{source}:{node.lineno}: {called(node)}")
    assert not astray, f"use {rule.instead}:\n" + "\n".join(astray)
    assert used == set(rule.excepted), f"no longer there: {set(rule.excepted) - used}"


@pytest.mark.parametrize(
    "text",
    [
        *(
            "open(p, 'w')",
            "p.open('wb')",
            "p.open(mode='a')",
            "io.open(p, 'r+')",
            "gzip.open(p, 'wb')",
            "os.open(p, 0)",
        ),
        *(
            "os.open(p, 0)",
            "os.replace(a, b)",
            "p.replace(q)",
            "p.rename(q)",
            "p.unlink()",
            "p.mkdir()",
            "(a / b).write_text('')",
        ),
        *("shutil.rmtree(p)", "tempfile.mkdtemp()", "TemporaryDirectory()", "FileLock(p)", "sqlite3.connect(p)"),
        *("image.save(p)", "onnx.save(m, p)", "np.savez(p)", "tar.extractall(p)", "cv2.imwrite(p, a)"),
    ],
)
def test_a_write_is_known_when_it_is_seen(text: str) -> None:
    call = ast.parse(text, mode="eval").body
    assert isinstance(call, ast.Call) and writes(call)


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (prints, "print(name)"),
        (prints, "map(print, names)"),
        (prints, "sys.stderr.write(text)"),
        (starts_processes, "subprocess.run(command)"),
        (starts_processes, "partial(subprocess.Popen, command)"),
        (starts_processes, "os.execv(path, words)"),
    ],
)
def test_a_print_and_a_process_are_known_when_they_are_seen(found: Callable[[ast.Call], bool], text: str) -> None:
    call = ast.parse(text, mode="eval").body
    assert isinstance(call, ast.Call) and found(call)


@pytest.mark.parametrize(
    "text",
    [
        *("open(p)", "p.open('rb')", "open(p, encoding='utf-8')", "pillow.open(p)", "text.replace('a', 'b')"),
        *("replace(settings, seed=1)", "write_file(target, data)", "shutil.copyfileobj(a, b)", "remove(target)"),
    ],
)
def test_what_is_no_write_is_none(text: str) -> None:
    call = ast.parse(text, mode="eval").body
    assert isinstance(call, ast.Call) and not writes(call)
