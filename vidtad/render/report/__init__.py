"""Timelines as web pages: one self-contained HTML file per video, and an index of several."""

from vidtad.render.report.render import Clip, page
from vidtad.render.report.write import write_report

__all__ = ["Clip", "page", "write_report"]
