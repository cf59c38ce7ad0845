"""The steering core that any host can use: adapters, rows, and steered logits from base logits."""

from steering.session.distributions import Distributions
from steering.session.row import Span, SteeredRow
from steering.session.session import SteeringSession

__all__ = ["Distributions", "Span", "SteeredRow", "SteeringSession"]
