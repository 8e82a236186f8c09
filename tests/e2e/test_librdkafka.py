"""The relay with a newer librdkafka than the one that is installed: the Python client brings
one along, and the same programs run with it. (Its contract tests: support/suite.py.)"""

from skaldtest import e2e
from skaldtest.librdkafka import newer_in, uses

from kills import EVENTS, kill_relay
from relays import MODES
from test_parked import keys_wait_and_go


def parked(t, mode):
    """Refusals, parking and release."""
    folder = newer_in(t.dir)
    daemon = keys_wait_and_go(t, mode, env={"LD_LIBRARY_PATH": folder})
    assert uses(daemon.pid, folder)


for _mode, _failpoint in zip(MODES, ("relay_after_produce", "stream_after_produce")):
    e2e("e2e.librdkafka.parked." + _mode, records=260, timeout=300)(
        lambda t, m=_mode: parked(t, m))
    e2e("e2e.librdkafka.killed." + _mode, records=EVENTS, effects=EVENTS)(
        lambda t, m=_mode, f=_failpoint: kill_relay(
            t, f, 1, m, env={"LD_LIBRARY_PATH": newer_in(t.dir)}))
