"""Events at length: the state machine of the core tests, where it is run briefly, in many more runs."""

from __future__ import annotations

from hypothesis import settings

from test.core.test_events import Promise


class AtLength(Promise):
    """The very same machine."""


TestAtLength = AtLength.TestCase
TestAtLength.settings = settings(max_examples=300, stateful_step_count=30, deadline=None, derandomize=True)
