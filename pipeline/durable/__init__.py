"""Files that survive: written whole or not at all, sealed by their own hash, owned by one job."""
