"""What is inside a tar: which members are links to which, and which text belongs to which image."""
