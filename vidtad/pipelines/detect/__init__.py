"""Video or features -> timeline on disk."""
