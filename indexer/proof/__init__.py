"""Prove an index: exact answers, recall of text and image queries against them, and the point that recall needs."""
