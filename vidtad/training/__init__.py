"""Data, schedules and the loop that trains any head; of files, `people` alone opens videos, and none reads labels."""
