"""What is on disk: layout and records, parts and their commit markers, plans, tombstones. See README.md here."""
