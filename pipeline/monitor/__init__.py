"""What a run tells: its progress, its events, its failures, and what limited it."""
