"""Text towers without torch: a search that asks one text does not spend its time on importing libraries."""
