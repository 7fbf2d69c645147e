"""Several timelines -> one."""
