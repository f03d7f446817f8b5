"""Filters: conditions on the columns of an index, in a small part of SQL. The entry point is `where.parse_where`.

    syntax.py    the grammar: what may be written, and what an error says about the rest
    columns.py   which columns there are, and how their values are read
    literals.py  numbers, texts, dates and truth values, as the columns need them
    compare.py   comparisons, `in` and `like`, batch by batch
    where.py     a parsed condition, and the mask of the rows where it is true

query/README.md describes the language.
"""
