"""Apache Kafka for tests: topics, whole-topic reads, offsets. Needs confluent-kafka.

The broker is started once for a run (tests/support/kafka.sh); its address is in
SKALD_TEST_KAFKA. A test has its own topics and groups (Test.topic, Test.group),
so tests share the broker and nothing else.
"""

import os
import shlex
import subprocess
import time
from dataclasses import dataclass, field
from typing import Optional

from .wait import PATIENCE, TimedOut, wait_until


@dataclass
class Record:
    """One record of a topic, as it lies there."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: Optional[bytes]
    value: Optional[bytes]
    header_list: list = field(default_factory=list)  # (name, bytes or None), in order

    @property
    def headers(self):
        """Name -> text; of several with one name the last."""
        return {n: (v.decode("utf-8", "replace") if v is not None else None)
                for n, v in self.header_list}

    def header(self, name):
        for n, v in reversed(self.header_list):
            if n == name:
                return v.decode("utf-8", "replace") if v is not None else None
        return None

    @property
    def id(self):
        return self.header("ce_id")

    @property
    def stream(self):
        return self.header("ce_stream")

    @property
    def position(self):
        return self.header("ce_sequence")


class Kafka:
    def __init__(self, bootstrap=None):
        self.bootstrap = bootstrap or os.environ.get("SKALD_TEST_KAFKA", "")
        if not self.bootstrap:
            raise RuntimeError("SKALD_TEST_KAFKA is not set: run through ./dev test NAME")
        self._admin = None

    # -- cluster ---------------------------------------------------------------------------

    def admin(self):
        from confluent_kafka.admin import AdminClient

        if self._admin is None:
            self._admin = AdminClient({"bootstrap.servers": self.bootstrap,
                                       "log_level": 2})
        return self._admin

    def cluster_id(self):
        return self.admin().list_topics(timeout=20).cluster_id

    def topics(self):
        return set(self.admin().list_topics(timeout=20).topics)

    def forbid_writing(self, topic):
        """Everything but writing to it (brokers with acls=True)."""
        from confluent_kafka.admin import (AclBinding, AclBindingFilter, AclOperation,
                                           AclPermissionType)

        rules = [AclBinding(*_everybody(topic), AclOperation.ALL, AclPermissionType.ALLOW),
                 AclBinding(*_everybody(topic), AclOperation.WRITE, AclPermissionType.DENY)]
        for future in self.admin().create_acls(rules).values():
            future.result(10)
        asked = AclBindingFilter(*_everybody(topic), AclOperation.ANY, AclPermissionType.ANY)
        wait_until(lambda: len(self.admin().describe_acls(asked).result(10)) == 2, 10,
                   "the broker to know the rules")

    def allow_writing(self, topic):
        from confluent_kafka.admin import AclBindingFilter, AclOperation, AclPermissionType

        rule = AclBindingFilter(*_everybody(topic), AclOperation.ANY, AclPermissionType.ANY)
        for future in self.admin().delete_acls([rule]).values():
            assert future.result(10), "there was no such rule"
        wait_until(lambda: not self.admin().describe_acls(rule).result(10), 10,
                   "the broker to know that the rules are gone")

    # -- topics ----------------------------------------------------------------------------

    def create_topic(self, name, partitions=4, replication=1, config=None):
        """Create and wait until every partition has a leader."""
        from confluent_kafka.admin import NewTopic

        new = NewTopic(name, num_partitions=partitions, replication_factor=replication,
                       config=config or {"max.message.bytes": str(20 * 1024 * 1024)})
        self._finish(self.admin().create_topics([new], request_timeout=30))
        self.wait_topic(name, partitions)
        return name

    def wait_topic(self, name, partitions=1, timeout=20):
        """Wait until the topic exists with (at least) that many partitions, all led."""
        def ready():
            meta = self.admin().list_topics(timeout=10).topics.get(name)
            return (meta and not meta.error and len(meta.partitions) >= partitions
                    and all(p.leader >= 0 for p in meta.partitions.values()))

        wait_until(ready, timeout, "topic %s to have leaders" % name)

    def delete_topic(self, name, timeout=30):
        self._finish(self.admin().delete_topics([name], operation_timeout=timeout))
        wait_until(lambda: name not in self.topics(), timeout,
                   "topic %s to be gone" % name)

    def grow_topic(self, name, partitions):
        """More partitions, as an operator adds them; every one has a leader on return."""
        from confluent_kafka.admin import NewPartitions

        self._finish(self.admin().create_partitions([NewPartitions(name, partitions)]))
        self.wait_topic(name, partitions)

    def configure_topic(self, name, **config):
        """Change settings of a topic: max_message_bytes=1000."""
        from confluent_kafka.admin import (AlterConfigOpType, ConfigEntry, ConfigResource,
                                           ResourceType)

        entries = [ConfigEntry(k.replace("_", "."), str(v),
                               incremental_operation=AlterConfigOpType.SET)
                   for k, v in config.items()]
        self._finish(self.admin().incremental_alter_configs(
            [ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries)]))
        place = ConfigResource(ResourceType.TOPIC, name)

        def known():
            (found,) = self.admin().describe_configs([place]).values()
            has = found.result(10)
            return all(has[e.name].value == e.value for e in entries)

        wait_until(known, 10, "the broker to know the settings of " + name)

    def recreate_topic(self, name, partitions=4, **kwargs):
        """Delete and make again, as an operator does it by mistake."""
        self.delete_topic(name)

        def again():
            try:
                return self.create_topic(name, partitions, **kwargs)
            except Exception as error:  # the deletion may still be in progress
                if "exist" in str(error).lower() or "deletion" in str(error).lower():
                    return None
                raise

        return wait_until(again, 30, "topic %s to be made again" % name)

    def partitions(self, name):
        meta = self.admin().list_topics(name, timeout=20).topics[name]
        return sorted(meta.partitions)

    # -- reading and writing ---------------------------------------------------------------

    def ends(self, topic):
        """partition -> (first offset, next offset); 3 ms, and no connection of its own: a
        consumer for each look now and then needs 0.7 s to find the leader."""
        from confluent_kafka.admin import OffsetSpec

        partitions = self.partitions(topic)
        first = self._offsets(topic, partitions, OffsetSpec.earliest())
        return {p: (first[p], end)
                for p, end in self._offsets(topic, partitions, OffsetSpec.latest()).items()}

    def count(self, topic):
        """Records in the topic by its offsets (transaction markers would count too)."""
        return sum(hi - lo for lo, hi in self.ends(topic).values())

    def read_topic(self, topic, timeout=60):
        """Every record of the topic up to the ends it has now, in partition and offset order."""
        from confluent_kafka import KafkaError, TopicPartition

        if topic not in self.topics():
            return []
        consumer = self._reader(eof=True)  # the last offset may be a marker's
        records = []
        try:
            ends = {p: at for p, at in self.ends(topic).items() if at[1] > at[0]}
            todo = {p: hi for p, (_, hi) in ends.items()}
            consumer.assign([TopicPartition(topic, p, lo) for p, (lo, _) in ends.items()])
            end = time.monotonic() + timeout * PATIENCE
            while todo:
                if time.monotonic() > end:
                    raise TimedOut("read_topic(%s): %d records read, partitions %s not at "
                                   "their end after %.0f s"
                                   % (topic, len(records), sorted(todo), timeout * PATIENCE))
                for m in consumer.consume(2000, timeout=0.2):
                    is_end = m.error() and m.error().code() == KafkaError._PARTITION_EOF
                    if m.error() and m.error().fatal():
                        raise RuntimeError(str(m.error()))
                    p = m.partition()
                    if p not in todo or (m.error() and not is_end):
                        continue
                    if not is_end and m.offset() < todo[p]:
                        records.append(Record(topic, p, m.offset(), m.timestamp()[1],
                                              m.key(), m.value(), m.headers() or []))
                    if m.offset() + (0 if is_end else 1) >= todo[p]:
                        del todo[p]
        finally:
            consumer.close()
        records.sort(key=lambda r: (r.partition, r.offset))
        return records

    def wait_count(self, topic, count, timeout=60):
        """Wait until the topic holds at least count records; returns how many."""
        def enough():
            if topic not in self.topics():
                return 0
            n = self.count(topic)
            return n if n >= count else 0

        return wait_until(enough, timeout, "%d records in %s" % (count, topic), every=0.1)

    def produce(self, topic, records, config=None):
        """records: (key, value, headers[, partition]); acknowledged on return.

        headers: a dict or a list of (name, bytes, str or None).
        """
        from confluent_kafka import Producer

        conf = {"bootstrap.servers": self.bootstrap, "enable.idempotence": True,
                "message.max.bytes": 20 * 1024 * 1024, "log_level": 2}
        conf.update(config or {})
        producer = Producer(conf)
        failed = []

        def report(error, _msg):
            if error:
                failed.append(error)

        for record in records:
            key, value, headers = record[:3]
            kwargs = {"partition": record[3]} if len(record) > 3 else {}
            while True:
                try:
                    producer.produce(topic, value=value, key=key, headers=headers or [],
                                     on_delivery=report, **kwargs)
                    break
                except BufferError:
                    producer.poll(0.1)
            producer.poll(0)
        if producer.flush(60 * PATIENCE) or failed:
            raise RuntimeError("produce to %s: %s" % (topic, failed[:3] or "not flushed"))

    def committed(self, group, topic):
        """partition -> committed offset of a group (-1001: none)."""
        from confluent_kafka import Consumer, TopicPartition

        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": group,
                             "log_level": 2})
        try:
            asked = [TopicPartition(topic, p) for p in self.partitions(topic)]
            return {t.partition: t.offset for t in consumer.committed(asked, timeout=20)}
        finally:
            consumer.close()

    # -- inside ----------------------------------------------------------------------------

    def _offsets(self, topic, partitions, spec):
        """A young topic's leader may not know yet that it leads: asked again."""
        from confluent_kafka import KafkaException, TopicPartition

        def ask():
            found = self.admin().list_offsets(
                {TopicPartition(topic, p): spec for p in partitions}, request_timeout=20)
            try:
                return {place.partition: future.result().offset
                        for place, future in found.items()}
            except KafkaException as error:
                if not error.args[0].retriable() and error.args[0].name() not in (
                        "NOT_LEADER_FOR_PARTITION", "LEADER_NOT_AVAILABLE",
                        "UNKNOWN_TOPIC_OR_PART"):
                    raise
                return None

        return wait_until(ask, 20, "the leaders of %s" % topic)

    def _reader(self, eof=False):
        from confluent_kafka import Consumer

        return Consumer({"bootstrap.servers": self.bootstrap, "enable.partition.eof": eof,
                         "group.id": "skaldtest-reader", "enable.auto.commit": False,
                         "auto.offset.reset": "earliest", "log_level": 2,
                         "fetch.message.max.bytes": 20 * 1024 * 1024,
                         "receive.message.max.bytes": 200 * 1024 * 1024,
                         "fetch.wait.max.ms": 20})

    @staticmethod
    def _finish(futures):
        for future in futures.values():
            future.result(timeout=40)


def _everybody(topic):
    """To whom and what a rule applies; without a login everybody is ANONYMOUS."""
    from confluent_kafka.admin import ResourcePatternType, ResourceType

    return ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, "User:ANONYMOUS", "*"


class PrivateKafka:
    """Brokers of one's own, for tests that kill them: with PrivateKafka(3) as k: k.kill(1)."""

    def __init__(self, brokers=1, directory=None, acls=False):
        from .pg import private_dir

        self.script = os.path.join(os.path.dirname(os.path.dirname(__file__)), "kafka.sh")
        self.jars = os.environ.get("SKALD_TEST_KAFKA_JARS", os.path.join(
            os.path.dirname(__file__), "..", "..", "..", ".deps", "kafka"))
        self.workdir = directory or private_dir("skald-kafka-")
        self.brokers = brokers
        self.acls = acls  # enforced, once there are any
        self.bootstrap = None

    def __enter__(self):
        out = self._run("start", self.jars, self.workdir, "--brokers", str(self.brokers),
                        "--while", str(os.getpid()), *(["--acls", "yes"] if self.acls else []))
        self.bootstrap = out.strip().splitlines()[-1]
        return self

    def __exit__(self, *_):
        try:
            self._run("stop", self.workdir)
        finally:
            import shutil

            shutil.rmtree(self.workdir, ignore_errors=True)

    def data_dir(self, number=1):
        """Where a broker keeps its partitions: TOPIC-PARTITION/*.log."""
        return os.path.join(self.workdir, str(number), "data")

    def kill(self, number):
        self._run("kill", self.workdir, str(number))

    def restart(self, number):
        self._run("restart", self.workdir, str(number))

    def _run(self, *args):
        done = subprocess.run([self.script] + list(args), stdout=subprocess.PIPE,
                              text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise RuntimeError("failed: " + shlex.join([self.script] + list(args)))
        return done.stdout
