"""Makes this folder a package for pytest, so that fixtures with its scope end before other tests start."""
