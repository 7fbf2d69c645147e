"""Every target of `scripts/fuzz.py` over its seeds and some mutations of them, without a fuzzer."""

import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vidtad.errors import VidtadError


@cache
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz", Path(__file__).parents[1] / "scripts" / "fuzz.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", sorted(script().TARGETS))
def test_seeds_are_read_and_mutations_raise_our_errors_alone(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    read, file_name, _ = script().TARGETS[name]
    seeds, path = script().seeds(name, folder), folder / file_name
    assert seeds
    for seed in seeds:
        path.write_bytes(seed)
        try:
            read(path)
        except VidtadError as error:
            assert name in ("labels-elan", "checkpoint"), f"a sound file is refused: {error}"

    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def mutated(data: st.DataObject) -> None:
        whole = bytearray(data.draw(st.sampled_from(seeds)))
        for _ in range(data.draw(st.integers(1, 4))):
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(bytes(whole[: data.draw(st.integers(len(whole) // 4, len(whole)))]))
        try:
            read(path)
        except VidtadError as error:
            assert str(error)

    mutated()
