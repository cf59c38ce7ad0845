"""Does one tiny model steer several bases across vocabularies, and how well? `python -m examples.study --help`."""
