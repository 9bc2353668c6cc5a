"""The monitor: what was spent, what was saved and why."""
