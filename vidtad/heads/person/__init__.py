"""Heads for what each person does: linear, ACAR, ACFB, Action Transformer."""
