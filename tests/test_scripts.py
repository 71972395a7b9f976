"""The demo and the benchmarks, at a small size."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(script: str, *arguments: object) -> str:
    command = [sys.executable, str(ROOT / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.framework
def test_demo(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    pytest.importorskip("sklearn")
    shown = run("scripts/demo.py", "--rows", 40_000, "--out", tmp_path / "out")
    for title in ("rows ", "bytes on disk", "memory ceiling", "peak memory oocload held", "peak RSS above imports"):
        assert title in shown
    accuracies = re.search(r"held-out accuracy +([0-9.]+) +([0-9.]+)", shown)
    assert accuracies is not None
    assert all(float(a) > 0.9 for a in accuracies.groups())
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["digits.h5", "digits.zarr"]


def test_granularity_benchmark(tmp_path: Path) -> None:
    run("benchmarks/granularity.py", "--quick", "--json", tmp_path / "g.json", "--dir", tmp_path)
    result = json.loads((tmp_path / "g.json").read_text())
    assert [len(layout["sizes"]) for layout in result["results"]] == [5, 5, 5, 5]


def test_read_benchmark_cold(tmp_path: Path) -> None:
    arguments = ("--quick", "--cold", "--data", "images", "--only", "contiguous", "--dir", tmp_path)
    assert "\n| HDF5 contiguous" in run("benchmarks/read.py", *arguments)


def test_statistics_benchmark(tmp_path: Path) -> None:
    code = f"import store_statistics; store_statistics.measure(1, quick=True, json={str(tmp_path / 's.json')!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "benchmarks", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((tmp_path / "s.json").read_text())["results"]
    assert done.stdout.count("GB/s") == 1
    assert all(result["of_hand"]["median"] > 0 and result["of_limit"]["median"] > 0 for result in results)


def test_shards_benchmark(tmp_path: Path) -> None:
    code = f"import shards; shards.measure({str(tmp_path)!r}, quick=True, json={str(tmp_path / 's.json')!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "benchmarks", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((tmp_path / "s.json").read_text())["results"]
    assert [result["layout"] for result in results] == ["a file each", "a file each, flat", "16", "64"]


@pytest.mark.parametrize("name", ["plan", "shuffle_quality"])
def test_benchmarks_of_the_order(tmp_path: Path, name: str) -> None:
    assert run(f"benchmarks/{name}.py", "--quick", "--json", tmp_path / "order.json").count("\n|") > 8
    assert json.loads((tmp_path / "order.json").read_text())["benchmark"] == name


def test_ceilings_benchmark(tmp_path: Path) -> None:
    arguments = ("--quick", "--only", "gzip", "--json", tmp_path / "c.json", "--dir", tmp_path)
    assert "HDF5 gzip-4, tight, busy consumer" in run("benchmarks/ceilings.py", *arguments)
    ceilings, read_ahead = json.loads((tmp_path / "c.json").read_text())["results"]
    assert [row["ceiling"] >> 20 for row in ceilings["ceilings"]] == [32, 64, 128, 256, 512, 1024]
    assert all(row["needed"] <= row["ceiling"] for row in ceilings["ceilings"])
    assert [row["tight"] for row in read_ahead["read_ahead"]] == [False, True, False, True]


def test_footprint_benchmark(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    arguments = ("--quick", "--only", "oocload, Zarr", "--json", tmp_path / "f.json", "--dir", tmp_path / "files")
    shown = run("benchmarks/memory_footprint.py", *arguments)
    assert shown.count("\n| oocload, Zarr (") == 3
    result = json.loads((tmp_path / "f.json").read_text())
    assert [r["n_rows"] for r in result["results"]] == [2560] * 3 + [5376] * 3
    assert all(r["rows"] > 0 and r["peak_above_imports"] > 0 for r in result["results"])
    assert list((tmp_path / "files").iterdir()) == []


@pytest.mark.framework
def test_footprint_benchmark_of_adapters(tmp_path: Path) -> None:
    pytest.importorskip("jax")
    shown = run("benchmarks/memory_footprint.py", "--quick", "--only", "to_jax (64", "--dir", tmp_path)
    assert re.search(r"\n\| oocload to_jax \(64 MiB\) \| [0-9]+ \| [0-9]+ \| [0-9,]+ \|", shown)


def test_footprint_benchmark_under_a_limit(tmp_path: Path) -> None:
    shown = run("benchmarks/memory_footprint.py", "--quick", "--limit", "--only", "h5py chunk", "--dir", tmp_path)
    if "no memory control group" in shown:
        pytest.skip("no memory control group can be made here")
    row = next(line for line in shown.splitlines() if line.startswith("| h5py chunk by chunk | "))
    free, limited, ratio = (float(cell.replace(",", "")) for cell in row.split("|")[2:5])
    assert min(free, limited, ratio) > 0
    assert list(tmp_path.iterdir()) == []


def test_convert_benchmark(tmp_path: Path) -> None:
    shown = run("benchmarks/convert.py", "--quick", "--json", tmp_path / "c.json", "--dir", tmp_path)
    results = json.loads((tmp_path / "c.json").read_text())["results"]
    speed = results["speed"]["images"]
    assert list(speed["npy to HDF5 gzip"]["gb_per_s"]) == ["oocload", "h5py"]
    assert {"zarr, chunk by chunk", "zarr, whole"} <= set(speed["npy to Zarr zstd"]["times_of_oocload"])
    assert all(list(speed[f"proof, {kind}"]["times_of_without"]) == ["with"] for kind in ("HDF5 gzip", "Zarr zstd"))
    sizes = speed["npy to HDF5 gzip"]["stored_nbytes"]
    assert sizes["oocload"] <= 1.01 * sizes["h5py"]
    sources = results["sources"]
    assert set(sources["npy folder to HDF5 gzip"]["gb_per_s"]) == {"oocload", "np.load and h5py"}
    assert set(sources["photographs to Zarr zstd"]["gb_per_s"]) == {"oocload", "Pillow", "Pillow, threads"}
    assert {"source", "stream", "whole"} <= set(sources["CSV"]["CSV of numbers"]["mb_per_s"])
    assert all(r["shuffled_takes_times_plain"]["median"] > 0 for r in sources["shuffle"]["images"].values())
    assert {r["target"] for r in results["memory"]} == {"out.h5", "out.zarr"}
    assert all(r["rows"] == 256 for r in results["memory"])
    assert shown.count("\n| npy, out.h5 | ") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["c.json"]


def test_recipes_benchmark(tmp_path: Path) -> None:
    arguments = ("--only", "batch_generator", "--rows", 2000, "--json", tmp_path / "r.json")
    assert "\n| [A batch generator over arrays in memory](docs/recipes/batch_generator.md) | 6 |" in run(
        "benchmarks/recipes.py", *arguments
    )
    (result,) = json.loads((tmp_path / "r.json").read_text())["results"]
    assert (result["old"], result["new"], result["difference"]) == ("batch generator", "oocload", 0)


def test_soak_benchmark(tmp_path: Path) -> None:
    run("benchmarks/soak.py", "--quick", "--json", tmp_path / "s.json", "--dir", tmp_path)
    result = json.loads((tmp_path / "s.json").read_text())
    assert {"iterator", "by number"} <= {r["reader"] for r in result["results"]}
    assert all(len(r["descriptors"]) == 1 for r in result["results"])


def test_overheads_benchmark(tmp_path: Path) -> None:
    run("benchmarks/overheads.py", "--quick", "--json", tmp_path / "overheads.json")
    assert json.loads((tmp_path / "overheads.json").read_text())["benchmark"] == "overheads"


@pytest.mark.framework
def test_transforms_benchmark(tmp_path: Path) -> None:
    pytest.importorskip("keras")
    shown = run("benchmarks/transforms.py", "--quick", "--json", tmp_path / "t.json", "--dir", tmp_path)
    results = json.loads((tmp_path / "t.json").read_text())["results"]
    assert set(results["operations"]["speed_of_ops_beside"]) == {"transform", "raw", "fill"}
    assert set(results["padding"]["of_copy"]) == {"kernel", "loader, one length", "loader, longest"}
    assert results["padding"]["padded_share"]["loader, buckets"] < results["padding"]["padded_share"]["loader, longest"]
    assert "two processes" in results["transforms"]["5 ms of Python"]["times_one_process"]
    assert shown.count("| pad_sequences |") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["t.json"]


@pytest.mark.framework
def test_adapters_benchmark(tmp_path: Path) -> None:
    for package in ("tensorflow", "keras", "torch", "jax"):
        pytest.importorskip(package)
    shown = run("benchmarks/adapters.py", "--quick", "--only", "gzip", "--json", tmp_path / "a.json", "--dir", tmp_path)
    results = json.loads((tmp_path / "a.json").read_text())["results"]
    parts = {"PyTorch": 1, "rows": 1, "JAX": 1, "batches": 1, "TFRecord": 1, "Keras": 0}
    assert {part: len(found) for part, found in results.items()} == parts
    assert [result["batch_rows"] for part in ("PyTorch", "JAX", "batches") for result in results[part]] == [256] * 3
    for result in results["batches"]:
        assert set(result["further"]["speed_of_iterator"]) == set(result["further"]["us_per_batch"]) - {"iterator"}
        assert all(rate["median"] > 0 for rate in result["epoch"]["rows_per_s"].values())
    for result in results["TFRecord"]:
        assert result["window_rows"] >= result["n_rows"] // 4
        assert set(result["speed_of_faster"]) == {"to_tf", "to_tf, in a function"}
    takers = [set(result["speed_of_iterator"]) for part in ("PyTorch", "JAX") for result in results[part]]
    assert takers == [{"to_torch", "DataLoader", "DataLoader, 2 workers"}, {"to_jax"}]
    assert set(results["rows"][0]["rows_per_s"]) == {"to_torch", "DataLoader by row"}
    assert shown.count(": to_tf, in a function |") == shown.count(": to_torch |") == shown.count(": to_jax |") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.framework
def test_gpu_benchmark_without_a_gpu(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("jax")
    shown = run("benchmarks/gpu.py", "--quick", "--device", "cpu", "--json", tmp_path / "gpu.json", "--dir", tmp_path)
    assert shown.startswith("no CUDA device: ")
    result = json.loads((tmp_path / "gpu.json").read_text())
    assert result["device"]["note"].startswith("no CUDA device: ")
    copies = [r for r in result["results"] if r["step"] == "no-op"]
    assert [set(r["speed_of_bare_copy"]) for r in copies] == [{"to_torch", "DataLoader"}, {"to_jax"}]
    steps = {(r["framework"], r["step"]): set(r["share_waiting"]) for r in result["results"] if r not in copies}
    assert steps == {
        ("PyTorch", "small CNN"): {"to_torch", "DataLoader"},
        ("PyTorch", "ResNet-50"): {"to_torch", "DataLoader"},
        ("JAX", "small CNN"): {"to_jax"},
    }
    assert [p.name for p in tmp_path.iterdir()] == ["gpu.json"]


def test_read_benchmark(tmp_path: Path) -> None:
    arguments = ("--quick", "--data", "features", "--json", tmp_path / "read.json", "--dir", tmp_path)
    shown = run("benchmarks/read.py", *arguments)
    result = json.loads((tmp_path / "read.json").read_text())
    names = [layout["layout"] for layout in result["results"]]
    assert len(names) == 21
    assert len(names) == sum(shown.count(f"\n| {kind}") for kind in ("HDF5", "Zarr", "npy"))
    for layout in result["results"]:
        assert layout["path"] == "direct"
        assert set(layout["rows_per_s"]) >= {"library", "random", "memory", "sequential", "shuffled", "limit"}
    for key in ("date", "commit", "cpu", "cores", "versions", "cache"):
        assert result[key]
    assert [p.name for p in tmp_path.iterdir()] == ["read.json"]
