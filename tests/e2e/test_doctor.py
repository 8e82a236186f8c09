"""`skald doctor` about topics and their ends: what only Apache Kafka and a relay can show."""

import glob
import json
import os
import subprocess

from skaldtest import e2e, psql, wait_until
from skaldtest.proc import bin_path, clean_env


def look(t, url, check, *flags, env=None):
    """Lines of one check."""
    done = subprocess.run(
        [bin_path("skald"), "doctor", "--json", "--database", url, "--brokers",
         t.kafka.bootstrap] + list(flags), capture_output=True, text=True, timeout=60,
        env=clean_env(env or {}))
    assert done.returncode in (0, 1), done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return [x for x in lines if x["check"] == check and x["source"] == "main"]


def paste(t, url, fix):
    """Into a shell, where skald and Kafka's own programs are on the path."""
    jars = os.environ["SKALD_TEST_KAFKA_JARS"]
    shim = os.path.join(t.dir, "kafka-configs.sh")
    if not os.path.exists(shim):
        with open(shim, "w") as f:
            f.write("#!/bin/sh\nexec java -cp '%s/*' kafka.admin.ConfigCommand \"$@\"\n" % jars)
        os.chmod(shim, 0o755)
    assert glob.glob(jars + "/*.jar")
    env = clean_env({"SKALD_DATABASE_URL": url, "SKALD_KAFKA_BOOTSTRAP_SERVERS": t.kafka.bootstrap})
    env["PATH"] = ":".join([t.dir, os.path.dirname(bin_path("skald")), env["PATH"]])
    done = subprocess.run(fix, shell=True, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def add(url, topic, count, data="'{}'"):
    psql(url, "SELECT count(skald.outbox_add('%s', 'k' || i, 'x', %s))"
              " FROM generate_series(1, %d) AS i" % (topic, data, count))


def publish(t, url, topic, count, name):
    """By a relay that lives as long as it takes."""
    before = t.kafka.count(topic)
    relay = t.skaldd(url, name=name)
    add(url, topic, count)
    t.kafka.wait_count(topic, before + count)
    wait_until(lambda: psql(url, "SELECT lag_rows FROM skald.relays")[0][0] == "0", 20, "no lag")
    relay.term()


@e2e("e2e.doctor.topics", records=4, timeout=240)
def topics(t):
    """A topic smaller than the largest row, one that may lose what it acknowledged, one that has
    more partitions than the relay goes by: named, and repaired by the command that is told."""
    url = t.database()
    topic = t.topic("small", partitions=2, config={"max.message.bytes": "20000",
                                                   "unclean.leader.election.enable": "true"})
    add(url, topic, 3)
    assert not [x for x in look(t, url, "topics") if "the largest row" in x["message"]]
    add(url, topic, 1, "jsonb_build_object('a', repeat('x', 30000))")
    found = look(t, url, "topics")
    for words in ("the largest row", "may elect a leader"):
        there = [x for x in found if words in x["message"]]
        assert len(there) == 1, found
        paste(t, url, there[0]["fix"])
        wait_until(lambda: not [x for x in look(t, url, "topics") if words in x["message"]], 20,
                   "the fix to work: " + words, every=0.5)
    assert [x["status"] for x in look(t, url, "topics")] == ["ok"]
    psql(url, "INSERT INTO skald.relay_topic (topic, partitions) VALUES ('%s', 1)" % topic)
    found = look(t, url, "partitions")
    assert len(found) == 1 and "2 partitions, the relay still goes by 1" in found[0]["message"]
    psql(url, "UPDATE skald.relay_topic SET partitions = 2")
    assert not look(t, url, "partitions")
    missing = look(t, url, "topics", "--set", "topics.create=false")
    assert [x["status"] for x in missing] == ["ok"], missing
    t.skaldd(url)  # and now the large one passes
    t.kafka.wait_count(topic, 4)
    t.check_topic(topic)


@e2e("e2e.doctor.restored_copy", records=60, timeout=240)
def restored_copy(t):
    """A database restored from before the topic's last records says so, also when it has seen
    none at all; adopted it is fine. Under load, and after a crash, it does not cry wolf."""
    url = t.database()
    topic = t.topic("ends", partitions=3)
    publish(t, url, topic, 30, "first")
    early = psql(url, "SELECT position, epoch FROM skald.relay")[0]
    assert [x["status"] for x in look(t, url, "position")] == ["ok"]
    publish(t, url, topic, 30, "second")
    late = psql(url, "SELECT position, epoch FROM skald.relay")[0]
    assert late[0] > early[0]
    t.check_topic(topic)

    relay = t.skaldd(url, name="third")
    for _ in range(3):
        add(url, topic, 2000)
        assert [x["status"] for x in look(t, url, "position")] == ["ok"]
    relay.kill()
    psql(url, "UPDATE skald.relay SET position = '%s', heartbeat_at = now() - interval '1 h'"
         % early[0])
    there = look(t, url, "position")[0]
    assert there["status"] == "warn" and there["fix"] == "systemctl start skaldd", there

    # a relay lives, nothing waits, and yet the topic knows more
    psql(url, "UPDATE skald.relay SET acked_snapshot = pg_current_snapshot(),"
              " tick_snapshot = pg_current_snapshot(), heartbeat_at = now() + interval '5 min'")
    there = look(t, url, "position")[0]
    assert there["status"] == "fail" and "beyond all that is recorded" in there["message"], there
    psql(url, "UPDATE skald.relay SET epoch = epoch - 100, position = NULL")
    there = look(t, url, "position")[0]
    assert there["status"] == "fail" and "later epoch" in there["message"], there
    psql(url, "DELETE FROM skald.lease")
    paste(t, url, there["fix"])
    there = look(t, url, "position")
    assert [x["status"] for x in there] == ["ok"], there
