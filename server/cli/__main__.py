"""`python -m server.cli` is `trimtab`."""

from server.cli.app import app

app()
