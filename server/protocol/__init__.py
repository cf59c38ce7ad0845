"""What goes over the wire: pydantic models of requests and replies. Nothing below the routes sees them."""
