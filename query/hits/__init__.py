"""What is found: hits, where they stand, near-duplicates, and how hits are shown and written."""
