"""Adapters attached to a base, and each sequence's state in them: its history, keys and values."""
