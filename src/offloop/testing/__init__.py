"""For tests of logging: stand-ins for destinations, and what goes wrong on the way to them."""

from offloop.testing.proxy import FaultProxy

__all__ = ["FaultProxy"]
