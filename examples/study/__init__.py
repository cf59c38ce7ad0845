"""A study of one tiny model that steers several bases across vocabularies. `python -m examples.study --help`."""
