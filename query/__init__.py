"""Index to answers: search, evaluation, the demo, the command line.

The whole story of an answer is `query.searcher.search`, that of a measurement `query.evaluate.evaluate`.
"""
