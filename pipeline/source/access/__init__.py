"""Open, read and list what a path or a URL names, and try again where that helps."""
