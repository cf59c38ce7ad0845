"""Requests and replies as JSON: the pydantic models of the API. The engine below never sees them."""
