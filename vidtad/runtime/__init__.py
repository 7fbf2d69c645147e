"""The machine: files, locks, places elsewhere, devices, memory."""
