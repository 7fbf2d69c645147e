"""Settings every test shares."""

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run in parallel processes, one thread each

# Machines that run this are slow and shared: time is never a reason to fail. The examples are the same in every run;
# VIDTAD_FUZZ=1 draws new ones, to look for failures on purpose.
settings.register_profile(
    "vidtad",
    deadline=None,
    max_examples=50,
    derandomize=not os.environ.get("VIDTAD_FUZZ"),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("vidtad")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of models that starts empty, so that no test sees what the user of the machine has fetched."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("VIDTAD_CACHE", str(folder))
    yield folder


def _missed(report: Any) -> Any:
    """With VIDTAD_NO_SKIPS, a skipped test or module has failed: nothing that a run is for is left out unseen."""
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("VIDTAD_NO_SKIPS"):
        report.outcome, report.longrepr = "failed", f"skipped, against VIDTAD_NO_SKIPS: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    return _missed((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Any, Any]:
    return _missed((yield))
