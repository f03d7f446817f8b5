"""Recipes: which FAISS index holds the codes, how it is told how hard to search, and in which form it is built."""
