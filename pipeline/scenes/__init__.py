"""The built-in demo: drawn scenes with captions, the small model trained on them, and its adapter."""
