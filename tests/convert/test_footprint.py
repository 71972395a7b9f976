"""The memory that a report names: what the conversion held, not what the process had."""

from pathlib import Path

import numpy as np
import pytest

import oocload
from oocload.convert import footprint
from oocload.convert.footprint import Footprint

MIB = 2**20


@pytest.fixture
def ballast() -> np.ndarray:
    """What a process has before, and has had."""
    np.ones(384 * MIB, np.uint8)  # gone at once
    return np.ones(128 * MIB, np.uint8)


@pytest.mark.parametrize("options", [{}, {"shuffle": True}, {"part_bytes": "8 MiB"}])
def test_it_is_that_of_the_conversion(tmp_path: Path, ballast: np.ndarray, options: dict[str, object]) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).integers(0, 256, (3000, 8192), "u1"))
    target = tmp_path / ("parts/p-*.zarr" if "part_bytes" in options else "t.h5")
    report = oocload.convert(tmp_path / "x.npy", target, memory="24 MiB", **options)
    assert 0 < report.peak_nbytes < 64 * MIB < ballast.nbytes
    assert f"peak memory +{report.peak_nbytes / MIB:.1f} MiB" in str(report)


def test_a_peak_between_two_looks_counts_where_it_is_the_highest_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    resident, most = 100, 500
    monkeypatch.setattr(footprint, "_resident_nbytes", lambda: resident)
    monkeypatch.setattr(footprint, "_most_nbytes", lambda: most)
    found = Footprint()
    assert found.peak_nbytes == 0
    resident = 150
    found.look()
    resident = 90
    assert found.peak_nbytes == 50  # the kernel's figure is of before
    most = 600
    assert found.peak_nbytes == 500
