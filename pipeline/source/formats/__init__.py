"""One module per kind of source, and what they share: captions files and text."""
