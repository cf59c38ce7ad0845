"""The HTTP storey: the wire, the engines' worker threads, metrics and the command line."""
