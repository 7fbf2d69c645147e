"""A timeline in a notebook: the table it shows itself as, and its data frame."""

import re
import sys
from fractions import Fraction
from types import ModuleType
from typing import Any

import pytest

from vidtad.errors import InputError
from vidtad.timeline import Segment, Timeline
from vidtad.video import VideoInfo

VIDEO = VideoInfo(path="a.mp4", width=64, height=48, fps=Fraction(25), duration_s=60.0, frames=1500)
FOUND = (Segment(3723.4, 3730, "jump & <b>run</b>", 0.9), Segment(1.0, 2.5, "wave", 0.2, track=7))


class Frame(dict[str, list[Any]]):
    """What the product uses of pandas.DataFrame."""

    kinds: dict[str, Any]

    def astype(self, kinds: dict[str, Any]) -> "Frame":
        self.kinds = dict(kinds)
        return self


@pytest.fixture
def pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("pandas")
    module.DataFrame = Frame  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pandas", module)


def timeline(*found: Segment, **detector: Any) -> Timeline:
    return Timeline({"a": found}, {"a": VIDEO}, detector)


def texts(page: str) -> list[list[str]]:
    """Cells of each line of the table."""
    return [re.findall(r"<t[dh]>(.*?)</t[dh]>", line) for line in re.findall(r"<tr.*?</tr>", page)]


@pytest.mark.usefixtures("pandas")
def test_data_frame() -> None:
    frame = timeline(*FOUND, display_score=0.5).to_dataframe()
    assert frame == {
        "video": ["a", "a"],
        "start_s": [1.0, 3723.4],
        "end_s": [2.5, 3730],
        "label": ["wave", "jump & <b>run</b>"],
        "score": [0.2, 0.9],
        "track": [7, None],
        "shown": [False, True],
    }
    assert list(frame) == list(frame.kinds) and frame.kinds["track"] == "Int64"
    assert timeline(*FOUND).to_dataframe()["shown"] == [True, True]  # no threshold is known
    assert list(timeline().to_dataframe()) == list(frame)


def test_data_frame_without_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match="pip install pandas"):
        timeline(*FOUND).to_dataframe()


def test_data_frame_of_the_real_pandas() -> None:
    pytest.importorskip("pandas")
    frame = timeline(*FOUND, display_score=0.5).to_dataframe()
    assert frame["track"].isna().tolist() == [False, True] and frame["track"][0] == 7
    assert frame.query("shown")["start_s"].tolist() == [3723.4]
    assert str(timeline().to_dataframe()["start_s"].dtype) == "float64"


def test_page() -> None:
    page = timeline(*FOUND, display_score=0.5)._repr_html_()
    assert texts(page) == [
        ["start", "end", "action", "score", "person"],
        ["1:02:03.4", "1:02:10.0", "jump &amp; &lt;b&gt;run&lt;/b&gt;", "0.90", ""],
        ["0:01.0", "0:02.5", "wave", "0.20", "7"],
    ]
    assert page.count("opacity") == 1 and "<p>pale: score under 0.5</p>" in page and "<p>a</p>" in page
    assert "No segments." in timeline()._repr_html_()


def test_page_of_several_videos_names_them() -> None:
    two = Timeline({"a": FOUND[:1], "<b>": FOUND[:1]}, {"a": VIDEO, "<b>": VIDEO})
    assert [line[0] for line in texts(two._repr_html_())] == ["video", "a", "&lt;b&gt;"]


def test_page_is_short() -> None:
    many = [Segment(number, number + 1, "wave", number / 100) for number in range(73)]
    page = timeline(*many)._repr_html_()
    starts = [line[0] for line in texts(page)[1:]]
    assert len(starts) == 50 and starts[0] == "1:12.0" and starts[-1] == "0:23.0"
    assert "and 23 more" in page and "all 73 segments" in page


@pytest.mark.parametrize(
    ("fact", "words"), [("demonstration", "demonstration detector"), ("random_weights", "dry run")]
)
def test_page_says_what_not_to_believe(fact: str, words: str) -> None:
    assert words in timeline(*FOUND, **{fact: True})._repr_html_()
    assert words not in timeline(*FOUND)._repr_html_()
