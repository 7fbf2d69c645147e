"""Report pages in a real browser, with real clicks and keys. Skipped where no Chromium is installed."""

import csv
import json
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.clips import numbered_frames, write_clip
from tests.formats.timelines import HOSTILE, overlapping, two_persons, video
from tests.render.report.browser import Browser, Page, executable
from vidtad.formats.tables import Annotations
from vidtad.render.report import Clip, page, write_report
from vidtad.timeline import PersonBox, Segment, Timeline, read_timeline
from vidtad.video import probe

pytestmark = pytest.mark.skipif(
    executable() is None, reason="no Chromium on this machine (install chromium, or set CHROMIUM to one)"
)
VP9 = {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}}
FRAME = """(async (time) => {
  const video = document.getElementById("video"), canvas = document.createElement("canvas");
  const there = new Promise((done) => video.addEventListener("seeked", done, { once: true }));
  vidtadReport.seek(time);
  await there;
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  canvas.width = video.videoWidth; canvas.height = video.videoHeight;
  const pen = canvas.getContext("2d");
  pen.drawImage(video, 0, 0);
  return [...pen.getImageData(0, 0, canvas.width, canvas.height).data].filter((_, k) => k % 4 === 0);
})"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    running = Browser(executable() or "", tmp_path_factory.mktemp("browser"))
    yield running
    running.close()


def opened(browser: Browser, folder: Path, timeline: Timeline, name: str = "match", **more: object) -> Page:
    place = folder / "page.html"
    place.write_text(page(timeline, name, place, **more), encoding="utf-8")  # type: ignore[arg-type]
    tab = browser.open(place.as_uri())
    tab.settle()
    return tab


def test_a_click_seeks_and_keys_walk(browser: Browser, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.webm", numbered_frames(60), 10, **VP9)
    found = (Segment(1.0, 2.0, "walk", 0.9), Segment(3.0, 5.0, "run", 0.8), Segment(4.5, 5.5, "walk", 0.3))
    tab = opened(browser, tmp_path, Timeline({"match": found}, {"match": probe(clip)}, {}), clip=Clip(clip))
    tab.wait("vidtadReport.hasVideo")
    place = tab.ask("vidtadReport.place(1)")
    tab.click(place["x"], place["y"])
    assert tab.ask("vidtadReport.selected") == 1
    assert tab.ask("vidtadReport.time") == pytest.approx(4.0, abs=0.05), "the middle of 3 to 5 s"
    assert tab.ask("document.getElementById('video').currentTime") == pytest.approx(4.0, abs=0.05)
    assert tab.ask("document.getElementById('selected').textContent").startswith("run: 0:03.00 to 0:05.00")
    assert "run" in tab.ask("document.getElementById('now').textContent")
    walked = []
    for key in "jkkk":
        tab.press(key)
        walked.append((tab.ask("vidtadReport.selected"), round(tab.ask("vidtadReport.time"), 2)))
    assert walked == [(2, 4.5), (1, 3.0), (0, 1.0), (0, 1.0)], "in order of time, from the one that was clicked"
    tab.press("ArrowRight")
    assert tab.ask("vidtadReport.time") == pytest.approx(2.0, abs=0.01)
    tab.press(",")
    assert tab.ask("vidtadReport.time") == pytest.approx(1.9, abs=0.01)
    before = tab.ask("vidtadReport.view")
    tab.press("+")
    after = tab.ask("vidtadReport.view")
    assert after["to"] - after["from"] == pytest.approx((before["to"] - before["from"]) / 2)
    tab.press("Space")
    tab.wait("vidtadReport.playing && vidtadReport.time > 2.05")
    tab.press("Space")
    tab.wait("!vidtadReport.playing")
    assert tab.complaints == []
    tab.close()


def test_seeking_shows_exactly_the_first_frame_of_a_segment(browser: Browser, tmp_path: Path) -> None:
    """Also where the container's clock starts at 1.5 s: time 0 is the first frame."""
    pts = [45 + k for k in range(60)]
    clip = write_clip(tmp_path / "late.webm", numbered_frames(60), 30, pts=pts, **VP9)
    info = probe(clip)
    assert info.start_s == pytest.approx(1.5)
    timeline = Timeline({"match": (Segment(0.5, 1.0, "hop", 0.5),)}, {"match": info}, {})
    tab = opened(browser, tmp_path, timeline, clip=Clip(clip, embed=True))
    tab.wait("vidtadReport.hasVideo")
    for number in (7, 15, 44):
        red = np.array(tab.ask(f"{FRAME}({number / 30})"), np.uint8).reshape(96, 160)
        assert sum(1 << bit for bit in range(10) if red[3:13, 16 * bit + 3 : 16 * bit + 13].mean() > 128) == number
    assert tab.complaints == []
    tab.close()


def test_the_slider_filters(browser: Browser, tmp_path: Path) -> None:
    found = tuple(Segment(k, k + 0.5, f"class {k % 3}", (k + 1) / 50) for k in range(50))
    tab = opened(browser, tmp_path, Timeline({"match": found}, {"match": video()}, {}))
    assert len(tab.ask("vidtadReport.shown")) == 50
    x, y = tab.centre("#threshold")
    tab.click(x, y)
    threshold = tab.wait("vidtadReport.threshold")
    assert threshold == pytest.approx(0.5, abs=0.05)
    assert tab.ask("vidtadReport.shown") == [k for k, s in enumerate(found) if s.score >= threshold]
    assert tab.ask("document.getElementById('count').textContent") == (
        f"{sum(s.score >= threshold for s in found)} of 50 segments"
    )
    counts = {row["name"]: row["count"] for row in tab.ask("vidtadReport.summary()")}
    wanted = {f"class {k}": sum(s.score >= threshold and s.label == f"class {k}" for s in found) for k in range(3)}
    assert counts == wanted
    tab.click(*tab.centre('#summary tbody input[data-label="1"]'))
    assert tab.ask("vidtadReport.lanes") == ["class 0", "class 2"]
    tab.ask("vidtadReport.setThreshold(2)")
    assert tab.ask("vidtadReport.shown") == [] and tab.complaints == []
    tab.close()


def moving_box(time_s: float) -> tuple[float, float, float, float]:
    """Where the white rectangle of the clip is: (x1, y1, x2, y2) in 0-1."""
    return 0.1 + 0.2 * time_s, 0.25, 0.3 + 0.2 * time_s, 0.75


@pytest.mark.parametrize("size", [(96, 160), (160, 96)])
def test_boxes_land_on_what_they_are_of(browser: Browser, tmp_path: Path, size: tuple[int, int]) -> None:
    """The drawn box and the white rectangle in the video's own pixels agree, at and between keyframes."""
    height, width = size
    frames = []
    for number in range(30):
        picture = np.full((height, width, 3), 20, np.uint8)
        x1, y1, x2, y2 = moving_box(number / 10)
        picture[round(y1 * height) : round(y2 * height), round(x1 * width) : round(x2 * width)] = 250
        frames.append(picture)
    clip = write_clip(tmp_path / "box.webm", frames, 10, **VP9)
    people = tuple(PersonBox(k / 2, 7, moving_box(k / 2), 0.9, (("slide", 0.8),)) for k in range(6))
    timeline = Timeline({"match": ()}, {"match": probe(clip)}, {}, {"match": people})
    tab = opened(browser, tmp_path, timeline, clip=Clip(clip, embed=True))
    tab.wait("vidtadReport.hasVideo")
    for time_s in (0.5, 1.2, 2.4):
        red = np.array(tab.ask(f"{FRAME}({time_s})"), np.uint8).reshape(height, width)
        rows, columns = np.nonzero(red > 128)
        seen = [columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height]
        # Box edges are two pixels thick: look for them along the middle of the expected box.
        drawn = tab.ask(
            """(() => { const c = document.getElementById("boxes"), a = vidtadReport.area();
            const p = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
            const on = (x, y) => p[(Math.round(y) * c.width + Math.round(x)) * 4 + 3] > 120;
            const [x1, y1, x2, y2] = vidtadReport.persons()[0].box;
            const cx = a.left + ((x1 + x2) / 2) * a.width, cy = a.top + ((y1 + y2) / 2) * a.height;
            const xs = [], ys = [];
            for (let x = 0; x < c.width; x += 1) if (on(x, cy)) xs.push((x + 0.5 - a.left) / a.width);
            for (let y = Math.round(cy); y < c.height; y += 1) if (on(cx, y)) ys.push((y + 0.5 - a.top) / a.height);
            return [Math.min(...xs), Math.max(...xs), Math.max(...ys)]; })()"""
        )
        pixel = 1.5 / min(width, height)
        assert drawn == pytest.approx([seen[0], seen[2], seen[3]], abs=pixel + 0.01), time_s
    assert tab.ask("vidtadReport.persons()[0].track") == 7
    tab.ask("vidtadReport.seek(2.9)")
    tab.wait("vidtadReport.persons().length === 0")
    assert tab.complaints == []
    tab.close()


def test_twenty_thousand_segments_are_bounded_work(browser: Browser, tmp_path: Path) -> None:
    rng = random.Random(0)
    starts = [rng.random() * 10700 for _ in range(20000)]
    found = tuple(
        Segment(start, start + 0.2 + rng.expovariate(1 / 8), f"class {rng.randrange(40)}", rng.random())
        for start in starts
    )
    info = video(duration_s=10800.0, frames=270000)
    tab = opened(browser, tmp_path, Timeline({"match": found}, {"match": info}, {}), threshold=0.0)
    assert len(tab.ask("vidtadReport.shown")) == 20000
    view = tab.ask("vidtadReport.view")
    columns, rows = view["width"] - view["gutter"], view["height"] / 20 + 5
    bars = []
    for top in (0, 500, 1500):
        frame = tab.ask(f"(document.getElementById('scroller').scrollTop = {top}, vidtadReport.work.frames)")
        tab.settle()
        work = tab.ask("vidtadReport.work")
        assert top == 0 or work["frames"] > frame
        assert 0 < work["bars"] <= columns * rows, "at most a bar a pixel column, of lanes in view only"
        bars.append(work["bars"])
    tab.ask("vidtadReport.show(5000, 5020)")
    tab.settle()
    assert tab.ask("vidtadReport.work.bars") < min(bars) / 5, "zoomed in, only what is in view"
    busiest = opened(
        browser,
        tmp_path,
        Timeline({"match": tuple(replace(s, label="one") for s in found)}, {"match": info}, {}),
        threshold=0.0,
    )
    assert busiest.ask("vidtadReport.work.bars") <= 5 * columns, "one lane: four rows and the coverage of the rest"
    assert tab.complaints == [] and busiest.complaints == []
    for one in (tab, busiest):
        one.close()


def test_script_in_names_does_not_run(browser: Browser, tmp_path: Path) -> None:
    names = [HOSTILE, "<img src=x onerror=window.pwned=1>", "javascript:window.pwned=1", "';window.pwned=1//"]
    found = tuple(Segment(k, k + 5, name, 0.9 - k / 10, k) for k, name in enumerate(names))
    people = tuple(PersonBox(1.0, k, (0.1, 0.1, 0.5, 0.5), 0.9, ((name, 0.9),)) for k, name in enumerate(names))
    clip = write_clip(tmp_path / "<img src=x onerror=window.pwned=1>.webm", numbered_frames(30), 10, **VP9)
    name = HOSTILE
    timeline = Timeline(
        {name: found},
        {name: replace(probe(clip), path=HOSTILE)},
        {"name": HOSTILE, "warnings": [HOSTILE]},
        {name: people},
    )
    truth = Annotations.from_rows([(name, HOSTILE, 0.0, 2.0)])
    tab = opened(browser, tmp_path, timeline, name, clip=Clip(clip), truth=truth)
    tab.wait("vidtadReport.hasVideo")
    for key in "jjj":
        tab.press(key)
    place = tab.ask("vidtadReport.place(1)")
    tab.call("Input.dispatchMouseEvent", type="mouseMoved", x=place["x"], y=place["y"])
    tab.settle()
    assert names[1] in tab.ask("document.getElementById('tip').textContent")
    assert tab.ask("typeof window.pwned") == "undefined" and tab.complaints == []
    shown = tab.ask("[...document.querySelectorAll('#summary tbody td:nth-child(2)')].map((td) => td.textContent)")
    assert sorted(shown) == sorted(names) and tab.ask("document.title") == HOSTILE
    assert tab.ask("document.querySelectorAll('script').length") == 3
    tab.ask("(() => { const s = document.createElement('script'); s.textContent = 'window.pwned = 1';"
            "document.body.append(s); })()")  # fmt: skip
    assert tab.ask("typeof window.pwned") == "undefined", "the policy stops even a script that got in"
    tab.close()


def test_what_is_exported_is_what_is_shown(browser: Browser, tmp_path: Path) -> None:
    timeline = two_persons()
    tab = opened(browser, tmp_path, timeline, threshold=0.0)
    tab.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "down"))
    tab.ask("vidtadReport.setThreshold(0.7)")
    for kind in ("json", "csv"):
        tab.click(*tab.centre(f"#export-{kind}"))
    end = time.monotonic() + 60
    wanted = {"match.filtered.json", "match.filtered.csv"}
    while time.monotonic() < end and {p.name for p in (tmp_path / "down").glob("*")} != wanted:
        time.sleep(0.05)
    back = read_timeline(tmp_path / "down/match.filtered.json")
    assert back.results == {"match": (timeline.results["match"][0],)} and back.videos == timeline.videos
    assert len(back.people["match"]) == 10
    assert {label for p in back.people["match"] for label, _ in p.actions} == {"walk", "wave"}
    (row,) = csv.DictReader((tmp_path / "down/match.filtered.csv").open())
    assert (row["label"], row["start_s"], row["score"], row["track"]) == ("walk", "9.500", "0.9", "0")
    tab.close()


def test_without_its_video_the_page_still_works(browser: Browser, tmp_path: Path) -> None:
    tab = opened(browser, tmp_path, two_persons(), clip=Clip(tmp_path / "gone.mp4"))
    assert "gone.mp4" in tab.wait("document.getElementById('notice').textContent")
    tab.press("j")
    assert tab.ask("vidtadReport.time") == 9.5
    tab.press("Space")
    tab.wait("vidtadReport.time > 9.6 && vidtadReport.persons().length === 2")
    assert tab.ask("vidtadReport.lanes") == ["person 0", "person 1"], "of persons, a lane each"
    tab.close()


def test_truth_lanes_theme_and_names_for_assistive_software(browser: Browser, tmp_path: Path) -> None:
    truth = Annotations.from_rows([("match", "walk", 10.0, 20.0), ("match", "swim", 30.0, 40.0)])
    tab = opened(browser, tmp_path, overlapping(), truth=truth)
    assert "swim" in tab.ask("vidtadReport.lanes"), "a class that was missed has its lane"
    assert {row["name"]: row["truth"] for row in tab.ask("vidtadReport.summary()")}["swim"] == 1
    light = tab.ask("getComputedStyle(document.body).backgroundColor")
    tab.click(*tab.centre("#theme"))
    assert tab.ask("getComputedStyle(document.body).backgroundColor") != light
    tree = tab.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "slider", "checkbox", "combobox", "spinbutton", "image", "dialog", "table"}
    nameless = [
        node["role"]["value"]
        for node in tree
        if not node.get("ignored")
        and node.get("role", {}).get("value") in roles
        and not node.get("name", {}).get("value")
    ]
    assert nameless == []
    tab.press("?")
    assert tab.ask("document.getElementById('help').open") and tab.complaints == []
    tab.close()


def test_the_index_leads_to_the_pages(browser: Browser, tmp_path: Path) -> None:
    names = ("first", "se cond#2")
    timeline = Timeline(
        {name: (Segment(1, 2, "hop", 0.5),) for name in names}, {name: video(fps=Fraction(25)) for name in names}, {}
    )
    index, *_ = write_report(timeline, tmp_path / "pages")
    tab = browser.open(index.as_uri())
    assert tab.complaints == []
    for link in json.loads(tab.ask("JSON.stringify([...document.links].map((a) => a.href))")):
        tab.go(link)
        assert tab.ask("vidtadReport.shown.length") == 1 and tab.complaints == []
    tab.close()
