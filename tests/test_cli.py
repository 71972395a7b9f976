import contextlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from oocload.cli import _value, main
from tests.conftest import read_back
from tests.verify.checksums import add_checksums


def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command in this process, which saves the second that imports take; `start` runs it in one of its own."""
    given = [*map(str, arguments)]
    with contextlib.chdir(cwd or Path.cwd()):
        result = CliRunner().invoke(main, given, prog_name="oocload")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return subprocess.CompletedProcess(given, result.exit_code, result.stdout, result.stderr)


def start(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "oocload", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def test_converts_the_real_mnist_files(tmp_path: Path, mnist: Path) -> None:
    images, labels = mnist / "t10k-images-idx3-ubyte.gz", mnist / "t10k-labels-idx1-ubyte.gz"
    done = start("convert", f"x={images}", f"y={labels}", "mnist.h5", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("wrote mnist.h5: 10,000 rows of x, y; 7.5 MiB in ")
    assert read_back(tmp_path / "mnist.h5")["x"].shape == (10_000, 28, 28)
    shown = run("info", tmp_path / "mnist.h5")
    assert shown.returncode == 0
    assert "10000 × 28 × 28" in shown.stdout
    assert "direct" in shown.stdout


def test_options_of_a_kind_of_source(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("size,species\n1,cat\n2,dog\nthree,cat\n")
    arguments = ("convert", "a.csv", "a.h5", "-o", "label=species", "-o", 'dtypes={"size": "int16"}')
    failed = start(*arguments, cwd=tmp_path)
    assert failed.returncode == 2
    assert "a.csv" in failed.stderr
    assert "three" in failed.stderr
    assert "Traceback" not in failed.stderr
    done = run(*arguments, "--on-error", "skip", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "wrote a.h5: 2 rows of size, y" in done.stdout
    assert "skipped 1:\n  a.csv, line 4" in done.stdout
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["size"].dtype == np.int16
        assert file["y"].attrs["oocload_vocabulary"] == '["cat", "dog"]'


def test_statistics(tmp_path: Path, make_store: Callable[..., Path]) -> None:
    make_store()
    done = run("stats", "store.h5", "--field", "y", "--memory", "64 MiB", "--threads", "1", "--save", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    title, _, row, *_ = done.stdout.splitlines()
    assert title == "statistics of store.h5"
    assert row.split() == ["y", "1003", "int64", "1,003", "0", "0", "501", "289.541", "0", "1002"]
    assert (tmp_path / "store.h5.stats.json").exists()
    joined = run("stats", "store.h5", "store.h5", cwd=tmp_path)
    assert "2,006" in joined.stdout
    assert run("stats", "--save", "store.h5", "store.h5", cwd=tmp_path).returncode == 2


def test_options_of_convert(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.arange(100), b=np.arange(100))
    options = [
        "--field",
        "b",
        "--codec",
        "blosc",
        "--level",
        "3",
        "--chunk-rows",
        "10",
        "--chunks-per-shard",
        "2",
    ]
    done = run("convert", *options, tmp_path / "a.npz", tmp_path / "t.zarr", "--no-progress")
    assert (done.returncode, done.stderr) == (0, "")
    assert list(read_back(tmp_path / "t.zarr")) == ["b"]
    assert run("convert", tmp_path / "a.npz", tmp_path / "t.zarr").returncode == 2
    assert run("convert", "--overwrite", tmp_path / "a.npz", tmp_path / "t.zarr").returncode == 0


def test_a_path_may_hold_an_equals_sign(tmp_path: Path) -> None:
    (tmp_path / "lr=0.1").mkdir()
    np.save(tmp_path / "lr=0.1" / "x.npy", np.arange(10))
    assert run("convert", "lr=0.1/x.npy", "a.h5", cwd=tmp_path).returncode == 0


def test_progress_is_shown_when_asked_for(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(100))
    done = run("convert", "--progress", tmp_path / "a.npy", tmp_path / "t.h5")
    assert "100%" in done.stderr


def test_verify_exits_with_1_where_a_chunk_is_bad(tmp_path: Path, make_store: Callable[..., Path]) -> None:
    path = make_store()
    add_checksums(path, only="x")
    done = run("verify", "store.h5", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    unchecked, summary = done.stdout.splitlines()
    assert unchecked == "without checksums, so not checked: store.h5::y"
    assert summary.startswith("verified store.h5: 78 chunks (34.7 KiB stored), all as they were written; ")
    with h5py.File(path) as file:
        offsets = [file["x"].id.get_chunk_info(chunk).byte_offset for chunk in (3, 77)]
    damaged = bytearray(path.read_bytes())
    for offset in offsets:
        damaged[offset + 5] ^= 1
    path.write_bytes(damaged)
    done = run("verify", "store.h5", "--field", "x", "--threads", "1", "--progress", cwd=tmp_path)
    assert done.returncode == 1
    first, second, summary = done.stdout.splitlines()
    assert first.startswith(f"bad: x, chunk 3, rows 39 to 52, in {path} at byte {offsets[0]}: its bytes are not those")
    assert second.startswith(f"bad: x, chunk 77, rows 1001 to 1003, in {path} at byte {offsets[1]}: its bytes are")
    assert ", 2 bad; " in summary
    assert "100%" in done.stderr
    path.write_bytes(damaged[:5000])
    done = run("verify", "store.h5", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("bad: in store.h5: it cannot be opened any more: store.h5 is truncated: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify", "nope.h5"], "oocload: store must exist, got 'nope.h5'; nothing lies at that path"),
        (["verify", "text.txt"], "oocload: store must have a suffix that names its format"),
        (
            ["verify", "good.h5"],
            "oocload: store must have checksums, and good.h5 has none: it was not written by oocload",
        ),
        (["info", "nope.h5"], "oocload: store must exist, got 'nope.h5'; nothing lies at that path"),
        (["stats", "nope.h5"], "oocload: store must exist, got 'nope.h5'; nothing lies at that path"),
        (
            ["stats", "good.h5", "--field", "z"],
            "oocload: field 'z' must be one of those in good.h5, which has 'x', 'y'",
        ),
        (["stats", "good.h5", "--memory", "1 KiB"], "oocload: memory must be at least "),
        (["info", "text.h5"], "oocload: text.h5 must be an HDF5 file, and h5py cannot open it"),
        (["info", "text.txt"], "oocload: store must have a suffix that names its format"),
        (["info", "cut.h5"], "oocload: cut.h5 is truncated"),
        (["convert", "nope.npy", "t.h5"], "oocload: source must exist, got 'nope.npy'"),
        (["convert", "a.npy", "t.txt"], "oocload: target must end in one of .h5, .hdf5, .zarr, got 't.txt'"),
        (
            ["convert", "a.npy", "good.h5"],
            "oocload: target must not exist, got 'good.h5'; pass --overwrite to replace it",
        ),
        (
            ["convert", "x=a.npy", "y=b.npy", "t.h5"],
            "oocload: fields must have the same number of rows: 'x' has 10, 'y' has 7",
        ),
        (["convert", "a.npy", "good.h5", "--dtype", "float99"], "oocload: --dtype must be names of dtypes, such as "),
        (["convert", "a.npy", "good.h5", "--dtype", "q=u1"], "oocload: --dtype must be given for fields of the source"),
        (["convert", "good.h5", "good.h5", "--field", "q"], "oocload: field 'q' must be one of those in good.h5"),
        (
            ["convert", "a.csv", "good.h5", "--field", "q"],
            "oocload: field 'q' must be one of those in a.csv, which has",
        ),
        (["convert", "a.npy", "good.h5", "--codec", "zip"], "oocload: codec must be one of"),
        (["convert", "a.npy", "t.h5", "--on-error", "skip"], "oocload: --on-error must be 'raise' for this source"),
        (
            ["convert", "a.npy", "t-*.h5"],
            "oocload: --part-bytes must be given for a target of several files, got 't-*.h5'",
        ),
        (
            ["convert", "a.npy", "b.npy"],
            "oocload: target must end in one of .h5, .hdf5, .zarr, got 'b.npy'; name the store that will be written",
        ),
        (
            ["stats", "good.h5", "z"],
            "oocload: store must exist, got 'z'; nothing lies at that path; to choose a field, pass --field z",
        ),
        (
            ["verify", "good.h5", "z"],
            "oocload: store must exist, got 'z'; nothing lies at that path; to choose a field, pass --field z",
        ),
        (["stats", "good.h5", "z.h5"], "oocload: store must exist, got 'z.h5'; nothing lies at that path\n"),
        (
            ["verify", "good.h5", "--permutation-of", "a.npy"],
            "oocload: --permutation-of must have the fields of the store, ['x', 'y'], got ['x']; choose those to "
            "compare with --field\n",
        ),
        (
            ["convert", "a.npy", "b.npy", "t.h5"],
            "oocload: several sources must be given as NAME=PATH, got a.npy b.npy; write such as x=a.npy y=b.npy",
        ),
        (["convert", "x=a.npy", "x=b.npy", "t.h5"], "oocload: source names must differ"),
        (
            ["convert", "c/0.jpg", "t.h5"],
            "oocload: source must be a folder of images, got the image 'c/0.jpg'; pass the folder it is in",
        ),
        (["convert", "c/*.jpg", "t.h5"], "oocload: source must be a folder of images, got the image 'c/0.jpg'"),
        (["convert", "*.txt", "t.h5"], "oocload: source must be one of a folder of images or .npy files, .npy, .npz"),
        (
            ["info", "c"],
            "oocload: c must be a Zarr store, and zarr cannot open it: the folder has none of its metadata; ",
        ),
        (["info", "a.csv"], "oocload: store must have a suffix that names its format"),
        (
            ["convert", "groups.h5", "t.h5"],
            "oocload: fields must have the same number of rows: 'test/x' has 3, 'train/x' has 9; row n of each is one "
            "sample; convert a group at a time, such as PATH::test",
        ),
        (["convert", "--codec", "zip", "a.npy", "t.h5"], "oocload: codec must be one of"),
        (["convert", "objects.npy", "t.h5"], "oocload: field 'x' (objects.npy) must have a fixed-size dtype"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    tmp_path: Path, make_store: Callable[..., Path], arguments: list[str], message: str
) -> None:
    np.save(tmp_path / "a.npy", np.arange(10))
    np.save(tmp_path / "b.npy", np.arange(7))
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    (tmp_path / "text.h5").write_text("text")
    (tmp_path / "text.txt").write_text("text")
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "0.jpg").write_bytes(b"")
    with h5py.File(tmp_path / "groups.h5", "w") as file:
        file["train/x"], file["test/x"] = np.zeros(9), np.zeros(3)
    (tmp_path / "cut.h5").write_bytes(make_store(name="good.h5").read_bytes()[:5000])
    before = sorted(tmp_path.iterdir())
    done = run(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing arguments 'SRC...' and 'DST': oocload convert SRC DST"),
        (["photos.npy"], "Missing argument 'DST', the store to write: oocload convert photos.npy DST"),
        (["a.h5"], "Missing argument 'SRC...', what is converted: oocload convert SRC a.h5"),
    ],
)
def test_convert_says_which_argument_is_missing(arguments: list[str], message: str) -> None:
    done = run("convert", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"Error: {message}\n" in done.stderr


def test_help_and_version() -> None:
    assert "convert" in run("--help").stdout
    assert "NAME=PATH" in run("convert", "--help").stdout
    assert start("--version").stdout.startswith("oocload, version ")


def test_an_interrupted_conversion_says_how_to_go_on(tmp_path: Path) -> None:
    rows = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", "u1", (100_000, 4096))
    noise = np.random.default_rng(0).integers(0, 256, (1000, 4096), "u1")
    for start in range(0, len(rows), 1000):
        rows[start : start + 1000] = noise
    del rows
    command = [sys.executable, "-m", "oocload", "convert", "x.npy", "t.h5", "--level", "9"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        journal = tmp_path / ".t.h5.oocload" / "journal"
        while not journal.exists() or journal.stat().st_size < 2000:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    assert process.returncode == 130
    assert re.fullmatch(r"oocload: interrupted; [\d,]+ rows are kept beside t\.h5: pass --resume to go on\n", said)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".t.h5.oocload", "x.npy"]


@pytest.mark.parametrize(
    ("text", "value"), [("False", False), ("true", True), ("None", None), ("[1]", [1]), ("a", "a")]
)
def test_values_of_options_are_json_or_pythons_or_text(text: str, value: object) -> None:
    assert _value(text) == value
