"""What both ends must agree on, and the frame that every daemon runs in."""

from beehive.timeouts import repair as _repair_timeouts

# Before any daemon or library of its own makes a timeout.
_repair_timeouts()
