"""Temporary."""

from typing import Any

BridgeName = Any
from steering.engine.outputs import *
from steering.engine.request import *
from steering.errors import *
from steering.specs import *
