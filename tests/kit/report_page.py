"""The tables of a page, read without a browser."""

from html.parser import HTMLParser


class Tables(HTMLParser):
    """Each table by its id: rows of cells, a cell being its text and the lines of its note."""

    def __init__(self, html):
        super().__init__()
        self.by_id, self._rows, self._cell = {}, None, None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        if tag == "table":
            self._rows = self.by_id.setdefault(dict(attrs)["id"], [])
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._cell = [""]
            self._rows[-1].append(self._cell)
        elif tag == "small" and self._cell is not None:
            self._cell.append("")

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._cell = None

    def handle_data(self, data):
        if self._cell is not None:
            self._cell[-1] += data

    def row(self, table, name):
        """The cells of the row with this heading, without blanks around them."""
        rows = [row for row in self.by_id[table] if row and row[0][0].strip() == name and len(row) > 1]
        assert len(rows) == 1, (table, name, rows)
        return [tuple(line.strip() for line in cell) for cell in rows[0][1:]]


def percent(fraction, sign=""):
    """A share in percent or points, with a true minus sign."""
    return f"{100 * fraction:{sign}.1f}".replace("-", "\N{MINUS SIGN}")
