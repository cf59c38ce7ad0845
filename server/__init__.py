"""The HTTP storey: routes, the engines' worker threads, metrics and the command line."""
