"""The packet index: every presentation time and keyframe of a stream, read without decoding."""

from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

from vidtad.video.clock import WILD_JUMP_S
from vidtad.video.header import Promise, open_container, packets_of, video_stream
from vidtad.video.stamps import PRESENTATION


@dataclass(frozen=True)
class PacketPlan:
    """Presentation times of all packets and of the keyframes among them, sorted, in container ticks.

    `last_length` is how long the last frame is shown, in ticks (0: not said).

    A plan, not the truth: damage shows only on decoding. `doubt` says in words why the plan cannot be relied
    on (times missing, repeated or running backwards, packets broken), and is empty where it can.
    """

    times: array
    keyframes: array
    doubt: str
    last_length: int = 0

    def nearest(self, ticks: float | Fraction) -> int:
        """Position of the packet time nearest to `ticks`; of two equally near, the earlier."""
        after = bisect_left(self.times, ticks)
        if after == 0:
            return 0
        if after == len(self.times):
            return after - 1
        early, late = self.times[after - 1], self.times[after]
        return after if late - ticks < ticks - early else after - 1

    def keyframe_for(self, ticks: int) -> int | None:
        """Time of the last keyframe at or before `ticks`, None when there is none."""
        after = bisect_right(self.keyframes, ticks)
        return self.keyframes[after - 1] if after else None


def read_plan(path: str | Path, promise: Promise) -> PacketPlan:
    """Demux the whole file (no decoding). Raises InputError when it cannot be opened."""
    times, keyframes = array("q"), array("q")
    doubt = "it carries no usable frame times" if promise.by_index or promise.first_ticks is None else ""
    if promise.stamps != PRESENTATION:
        doubt = "its frame times are those of decoding"
    first, last_dts = promise.first_ticks or 0, None
    last_length, latest = 0, None
    with open_container(path) as container:
        for packet in packets_of(container, video_stream(container, path)):
            if not packet.size or packet.is_discard:
                continue
            if packet.is_corrupt:
                doubt = doubt or "some of its packets are broken"
            if packet.pts is None:
                doubt = doubt or "it carries no usable frame times"
                continue
            if packet.dts is not None:
                if last_dts is not None and packet.dts < last_dts:
                    doubt = doubt or "its clock runs backwards"
                last_dts = packet.dts
            # What lies before the first decodable frame cannot be shown: leading pictures of an open GOP.
            if packet.pts >= first:
                times.append(packet.pts)
                if latest is None or packet.pts > latest:
                    latest, last_length = packet.pts, packet.duration or 0
                if packet.is_keyframe:
                    keyframes.append(packet.pts)
    times, keyframes = array("q", sorted(times)), array("q", sorted(keyframes))
    if not times:
        doubt = doubt or "no packet of it can be read"
    if any(early == late for early, late in pairwise(times)):
        doubt = doubt or "frame times repeat"
    if times and promise.duration_s is not None:
        late_s = float((times[-1] - first) * promise.time_base) - promise.duration_s
        doubt = doubt or ("a frame time lies far past its end" if late_s > WILD_JUMP_S else "")
    return PacketPlan(times, keyframes, doubt, last_length)
