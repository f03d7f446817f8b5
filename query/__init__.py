"""From an index to answers: search, evaluation, inspection, the demo and the command line.

Start reading at `searcher.search` for a search, and at `evaluate.evaluate` for a measurement.
"""
