"""The store on disk: layout and records, plans, parts and their commit markers, tombstones. See README.md here."""
