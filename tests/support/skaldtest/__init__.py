"""skaldtest: the rig of the end-to-end tests.

A test is a function in tests/e2e/test_*.py:

    from skaldtest import e2e, check, wait_until

    @e2e("e2e.relay.kill_after_tick", records=1000)
    def kill_after_tick(t):
        db = t.database()                         # fresh database with the schema
        topic = t.topic("orders", partitions=4)   # a topic of its own
        relay = t.skaldd(db, failpoint="relay_after_tick:2")
        with t.connect(db) as conn: ...           # psycopg
        relay.wait_killed()
        t.skaldd(db)
        t.kafka.wait_count(topic, 1000)
        t.check_topic(topic, expected=ids, version=check.json_field("version"))

    @e2e("e2e.relay.control_id_reader", records=1)
    def control(t):
        ...
        check.require_kind(check.topic(records, ids, positions=False), "lost")
        t.checked(records=len(records))

Run one: ./dev test e2e.relay.kill_after_tick     (SKALD_SEED=N repeats its random choices)
Every wait goes through wait_until(predicate, timeout, what); nothing sleeps and hopes.
"""

from . import check
from .kafka import Kafka, PrivateKafka, Record
from .pg import Cluster, PgError, Standby, connect, connect_when_up, either_url, free_port, psql
from .proc import Proc, bin_path, run_tool
from .runner import Test, e2e
from .wait import TimedOut, say, wait_until

__all__ = [
    "Cluster", "Kafka", "PgError", "PrivateKafka", "Proc", "Record", "Standby", "Test", "TimedOut",
    "bin_path", "check", "connect", "connect_when_up", "e2e", "either_url", "free_port", "psql",
    "run_tool", "say", "wait_until",
]
