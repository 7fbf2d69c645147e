"""From labelled videos or features to a bundle: checks, data, settings, scores, report."""
