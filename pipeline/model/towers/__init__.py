"""Views of image towers, one per family, and the kernels that run their blocks."""
