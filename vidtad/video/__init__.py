"""Open, probe and decode videos: RGB uint8 frames with each frame's own time.

Pictures come in order of time, what went wrong in the video is told afterwards:

    with open_video("clip.mp4") as video:
        for frame in video:
            frame.time_s, frame.rgb()
    video.report.warnings
"""

from vidtad.video.clock import resample
from vidtad.video.describe import describe
from vidtad.video.reader import Video, open_video, probe
from vidtad.video.types import DecodeReport, Frame, VideoInfo

__all__ = ["DecodeReport", "Frame", "Video", "VideoInfo", "describe", "open_video", "probe", "resample"]
