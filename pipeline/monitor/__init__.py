"""What a run reports: its progress, its events, its failures, and what limited it."""
