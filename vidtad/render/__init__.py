"""Timelines back onto video: report, overlay, clips."""
