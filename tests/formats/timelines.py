"""Timelines for the tests of interchange formats and reports."""

from fractions import Fraction

from vidtad.timeline import PersonBox, Segment, Timeline
from vidtad.video import VideoInfo

HOSTILE = "</script><script>window.pwned=1</script> & \"quoted\" 'single' --> ünï 漢字"


def video(name: str = "match", fps: Fraction | int = 25, **more: object) -> VideoInfo:
    known = {"width": 640, "height": 360, "duration_s": 60.0, "frames": int(60 * Fraction(fps)), "codec": "h264"}
    return VideoInfo(path=f"videos/{name}.mp4", fps=Fraction(fps), **known | more)  # type: ignore[arg-type]


def overlapping(fps: Fraction | int = 25) -> Timeline:
    """One video; two `walk` overlap, one label needs escaping, one segment belongs to person 3."""
    found = (
        Segment(10.0, 20.0, "walk", 0.9),
        Segment(15.0, 30.0, "walk", 0.8),
        Segment(18.5, 19.25, HOSTILE, 0.7),
        Segment(40.0, 60.0, "run", 0.625, 3),
    )
    return Timeline({"match": found}, {"match": video(fps=fps)}, {"name": "test"})


def two_persons() -> Timeline:
    """Two persons at keyframes 10 to 14 s; the first walks all the time, the second waves twice."""
    people = []
    for second in range(10, 15):
        shift = (second - 10) * 0.02
        people.append(PersonBox(float(second), 0, (0.1 + shift, 0.2, 0.3 + shift, 0.9), 0.95, (("walk", 0.9),)))
        actions = (("wave", 0.8),) if second in (10, 14) else ()
        people.append(PersonBox(float(second), 1, (0.6, 0.25, 0.8, 0.75), 0.9, (*actions, ("stand", 0.6))))
    found = (Segment(9.5, 14.5, "walk", 0.9, 0), Segment(9.5, 14.5, "stand", 0.6, 1))
    return Timeline({"match": found}, {"match": video()}, {"name": "test"}, {"match": tuple(people)})
