"""Losses, schedules and the loop that trains any head; knows nothing of files of videos or labels."""
