"""Durable files: written whole or not at all, sealed with a hash of their own bytes, owned by one job."""
