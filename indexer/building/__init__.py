"""Build the FAISS index of a plan in steps that a killed build continues with: k-means, lists, codes, or a graph."""
