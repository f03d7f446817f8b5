"""An index to answers: search, evaluation, inspection, the demo, the command line.

The whole story of an answer is `searcher.search`, that of a measurement `evaluate.evaluate`.
"""
