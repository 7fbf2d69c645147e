"""What a report page is made of: one file, nothing fetched, nothing from files able to run."""

import base64
import hashlib
import html
import json
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.clips import numbered_frames, write_clip
from tests.formats.timelines import HOSTILE, overlapping, two_persons, video
from tests.render.report.browser import script_hashes
from vidtad.cli import app
from vidtad.errors import InputError
from vidtad.formats.tables import Annotations
from vidtad.render.report import Clip, page, write_report
from vidtad.render.report.render import document, inert_json
from vidtad.timeline import Segment, Timeline, write_timeline_json


class Elements(HTMLParser):
    """Collects tags with attributes, and the text of scripts, as a browser would see them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.found.append((f"/{tag}", {}))

    def handle_data(self, data: str) -> None:
        if self.found and self.found[-1][0] == "script":
            self.scripts[-1] += data


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def hostile() -> Timeline:
    found = (Segment(1.0, 2.0, HOSTILE, 0.9), Segment(1.0, 2.0, "\u2028{{script}}{{data}}", 0.8))
    info = replace(video(), path=HOSTILE)
    return Timeline({HOSTILE: found}, {HOSTILE: info}, {"name": HOSTILE, "warnings": [HOSTILE]})


def test_nothing_is_fetched(tmp_path: Path) -> None:
    text = page(two_persons(), "match", tmp_path / "a.html")
    assert not re.search(r"""(?:src|href)\s*=\s*["']?\s*(?:https?:|//)""", text)
    assert "https://" not in text and "http://" not in text and "@import" not in text and "url(" not in text
    assert "default-src 'none'" in text and "connect-src" not in text


def test_only_the_pages_own_script_may_run(tmp_path: Path) -> None:
    text = page(hostile(), HOSTILE, tmp_path / "a.html")
    elements = Elements(text)
    assert len(elements.scripts) == 3, "data, embedded video, program"
    (allowed,) = script_hashes(html.unescape(text))
    program = elements.scripts[2]
    assert allowed == "sha256-" + base64.b64encode(hashlib.sha256(program.encode()).digest()).decode()
    assert "pwned" not in program and "<script>window" not in text
    assert not any(name.startswith("on") or name == "style" for _, attrs in elements.found for name in attrs)


def test_data_arrives_unchanged(tmp_path: Path) -> None:
    text = page(hostile(), HOSTILE, tmp_path / "a.html")
    data = json.loads(Elements(text).scripts[0])
    assert {data["labels"][row[2]] for row in data["segments"]} == {s.label for s in hostile().results[HOSTILE]}
    assert data["id"] == HOSTILE and data["notices"] == [HOSTILE]
    assert html.escape(HOSTILE) in text.partition("</title>")[0]


def test_inert_json_has_no_markup_and_reads_back() -> None:
    text = inert_json([HOSTILE, "\u2028", "<!--", "]]>"])
    assert not set("<>&\u2028") & set(text) and json.loads(text) == [HOSTILE, "\u2028", "<!--", "]]>"]


def test_the_video_is_linked_relative_to_the_page(tmp_path: Path) -> None:
    clip = tmp_path / "my videos" / "a#b ü.mp4"
    clip.parent.mkdir()
    clip.write_bytes(b"x")
    address = Clip(clip).address(tmp_path / "out" / "a.html")
    assert address == "../my%20videos/a%23b%20%C3%BC.mp4"


def test_embedding_carries_the_bytes_and_knows_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = tmp_path / "a.webm"
    clip.write_bytes(os.urandom(1000))
    text = page(overlapping(), "match", tmp_path / "a.html", clip=Clip(clip, embed=True))
    scripts = Elements(text).scripts
    assert base64.b64decode(scripts[1]) == clip.read_bytes()
    assert json.loads(scripts[0])["embedded"] == "video/webm" and json.loads(scripts[0])["video"] is None
    monkeypatch.setattr("vidtad.render.report.render.EMBED_LIMIT", 999)
    with pytest.raises(InputError, match="too many to embed"):
        page(overlapping(), "match", tmp_path / "a.html", clip=Clip(clip, embed=True))


def test_truth_threshold_and_persons_in_the_data() -> None:
    truth = Annotations.from_rows([("match", "walk", 1.0, 2.0), ("other", "run", 0.0, 1.0), ("match", "hop", 3.0, 3.0)])
    data = document(overlapping(), "match", truth)
    assert [(s, e, data["labels"][k]) for s, e, k in data["truth"]] == [(1.0, 2.0, "walk")]
    assert data["threshold"] == 0.0, "four segments are not too many"
    many = tuple(Segment(k, k + 1, "a", k / 1000) for k in range(1000))
    crowded = Timeline({"match": many}, {"match": video()}, {})
    assert (
        sum(row[3] >= document(crowded, "match")["threshold"] for row in document(crowded, "match")["segments"]) == 60
    )
    assert document(crowded, "match", threshold=0.5)["threshold"] == 0.5
    bare = replace(two_persons(), results={"match": ()})
    rows = document(bare, "match")["segments"]
    assert (9.5, 14.5, 0) in {(row[0], row[1], row[4]) for row in rows}, "actions of persons become segments"


def test_several_videos_make_an_index(tmp_path: Path) -> None:
    names = ("a", "B", "../up", HOSTILE)
    timeline = Timeline(
        {name: (Segment(1, 2, HOSTILE, 0.5),) for name in names}, {name: video() for name in names}, {"name": "test"}
    )
    written = write_report(timeline, tmp_path / "pages")
    assert written[0] == tmp_path / "pages/index.html" and len(written) == 5
    assert all(path.resolve().parent == (tmp_path / "pages").resolve() and path.exists() for path in written)
    text = written[0].read_text()
    links = [attrs["href"] for tag, attrs in Elements(text).found if tag == "a"]
    assert len(links) == 4 and "<script" not in text
    assert "script-src 'sha256-" in text and not Elements(text).scripts


def test_command_line(tmp_path: Path) -> None:
    folder = tmp_path / "timelines"
    clip = write_clip(tmp_path / "match.mp4", numbered_frames(10), 25)
    timeline = replace(overlapping(), videos={"match": replace(video(), path=str(clip))})
    write_timeline_json(timeline, folder / "match.json")
    result = run("report", folder / "match.json")
    assert result.exit_code == 0 and result.stdout.strip() == str(folder / "match.html") and not result.stderr
    assert '"video":"../match.mp4"' in (folder / "match.html").read_text()
    other = Timeline({"b": ()}, {"b": video("b")}, {"name": "test"})
    write_timeline_json(other, folder / "b.json")
    result = run("report", folder, "--out", tmp_path / "pages", "--json")
    assert json.loads(result.stdout)["without_video"] == ["b"] and "no video file found for b" in result.stderr
    assert sorted(path.name for path in (tmp_path / "pages").iterdir()) == ["b.html", "index.html", "match.html"]


def test_truth_of_persons_is_read_from_ava_rows(tmp_path: Path) -> None:
    whole = two_persons()
    labels = sorted({s.label for s in whole.results["match"]})
    write_timeline_json(whole, tmp_path / "t.json")
    one, two = "0.1,0.1,0.3,0.9", "0.6,0.1,0.9,0.9"
    # The first person does 1 for three seconds and 2 in the last of them; the second does 2, out of sight at 0012.
    rows = [f"match,{second:04d},{one},1,0" for second in (10, 11, 12)]
    rows += [f"match,0012,{one},2,0", f"match,0011,{two},2,7", f"match,0014,{two},2,7", f"other,0011,{two},2,7"]
    (tmp_path / "people.csv").write_text("\n".join(rows))
    (tmp_path / "names.pbtxt").write_text(
        "".join(f'item {{\n  name: "{label}"\n  id: {number}\n}}\n' for number, label in enumerate(labels[:2], 1))
    )
    command = ("report", tmp_path / "t.json", "--out", tmp_path / "r.html", "--truth", tmp_path / "people.csv")
    unnamed = run(*command)
    assert unnamed.exit_code == 2 and "--label-map" in unnamed.stderr and not (tmp_path / "r.html").exists()
    expected = {
        (9.5, 12.5, labels[0]),
        (11.5, 12.5, labels[1]),
        (10.5, 11.5, labels[1]),
        (13.5, 14.5, labels[1]),
    }
    assert run(*command, "--label-map", tmp_path / "names.pbtxt").exit_code == 0
    assert shown_truth(tmp_path / "r.html") == expected
    (tmp_path / "names.pbtxt").rename(tmp_path / "people.ava.pbtxt")
    assert run(*command).exit_code == 0 and shown_truth(tmp_path / "r.html") == expected, "the map beside it is found"
    named = [row.replace(",1,0", f",{labels[0]},0").replace(",2,", f",{labels[1]},") for row in rows]
    (tmp_path / "people.csv").write_text("\n".join(named))
    (tmp_path / "people.ava.pbtxt").unlink()
    assert run(*command).exit_code == 0 and shown_truth(tmp_path / "r.html") == expected, "names need no map"


def shown_truth(page: Path) -> set[tuple[float, float, str]]:
    """Ground truth in a page's data: (start, end, label)."""
    (text,) = [text for text in Elements(page.read_text()).scripts if text.lstrip().startswith("{")]
    data = json.loads(text)
    assert data["truth"]
    return {(start, end, data["labels"][label]) for start, end, label in data["truth"]}


def test_mistakes_are_one_sentence(tmp_path: Path) -> None:
    write_timeline_json(overlapping(), tmp_path / "match.json")
    write_timeline_json(Timeline({"b": ()}, {"b": video("b")}, {}), tmp_path / "b.json")
    (tmp_path / "broken.txt").write_text("{")
    (tmp_path / "damaged.csv").write_text("match,0001,0.1,0.1,0.2,0.2,1,0\nmatch,0001,0.2,0.1,0.1,0.2,1,0\n")
    for arguments, said in (
        ((tmp_path / "none.json",), "no such file"),
        ((tmp_path / "broken.txt",), "not valid JSON"),
        ((tmp_path, "--out", tmp_path / "x.html"), "name a folder"),
        ((tmp_path / "match.json", "--video", tmp_path / "broken.txt"), "broken.txt"),
        ((tmp_path / "match.json", "--truth", tmp_path / "nothing.json"), "nothing.json"),
        ((tmp_path / "match.json", "--truth", tmp_path / "damaged.csv"), "damaged.csv:2"),
        ((tmp_path / "match.json", "--label-map", tmp_path / "x.pbtxt"), "--truth"),
    ):
        result = run("report", *arguments)
        assert result.exit_code == 2 and said in result.stderr, result.stderr
        assert "Traceback" not in result.stderr
