"""The drawings of the report. Each is drawn once by matplotlib, for files and for the page."""
