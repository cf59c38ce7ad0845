"""What several groups of routes need."""

from __future__ import annotations

from fastapi import Request

from server.errors import ApiError
from server.service import Service
from server.streaming import event


def service_of(request: Request) -> Service:
    """The service of the app that answers this request."""
    service = request.app.state.service
    if not isinstance(service, Service):
        raise RuntimeError("the app was not made by build_app")
    return service


def ended_by(error: ApiError, service: Service) -> str:
    """The last event of a stream that an error ends."""
    service.metrics.count_error(error.status)
    return event(error.body())
