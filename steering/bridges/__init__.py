"""Bridges: how an adapter's shift reaches the base's vocabulary. One file each, and the table of their names."""
