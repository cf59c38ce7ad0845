"""The report that every benchmark ends with: a table, the figures held against bars, and one JSON line."""
