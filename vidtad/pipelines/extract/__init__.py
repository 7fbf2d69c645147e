"""Video -> features on disk."""
