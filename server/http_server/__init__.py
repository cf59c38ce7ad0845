"""The HTTP server around an app: connections within limits, and an orderly end."""

from server.http_server.draining import DrainingServer, make_server

__all__ = ["DrainingServer", "make_server"]
