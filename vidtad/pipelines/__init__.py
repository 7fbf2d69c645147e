"""The only rooms that know the order of stages: video -> features -> detections -> timeline."""
