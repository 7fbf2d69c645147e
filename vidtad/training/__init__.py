"""Data, schedules, plans and the loop that trains any head; no head by name, and no file is opened here."""
