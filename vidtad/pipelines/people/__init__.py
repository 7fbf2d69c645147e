"""From video to people with boxes and actions: detection, tracks, ensembles, training."""
