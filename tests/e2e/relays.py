"""The relay in its two modes, as tests ask for it and look at it."""

import os

from skaldtest import check, psql, wait_until

MODES = ("poll", "wal")
VERSION = check.json_field("version")


def by_hand(name, default):
    """A number that a run by hand raises by an environment variable."""
    return int(os.environ.get("SKALD_" + name, default))


def mode_settings(mode, **more):
    """{"relay.mode": mode}, and more with dots for double underscores: topics__create="false"."""
    found = {"relay.mode": mode}
    found.update({k.replace("__", "."): str(v) for k, v in more.items()})
    return found


def mode_of(url):
    return psql(url, "SELECT mode FROM skald.relays")[0][0]


def wait_mode(url, mode, timeout=30):
    wait_until(lambda: mode_of(url) == mode, timeout, "the relay's mode to be " + mode)


def relay(t, url, mode, wait=True, settings=None, **kwargs):
    """A skaldd in this mode; wait: until it is what the relay does."""
    all_settings = mode_settings(mode)
    all_settings.update(settings or {})
    p = t.skaldd(url, settings=all_settings, **kwargs)
    if wait and not kwargs.get("failpoint"):
        wait_mode(url, mode)
    return p


def lag_rows(url):
    return int(psql(url, "SELECT lag_rows FROM skald.relays")[0][0])


def wait_acked(url, timeout=60):
    wait_until(lambda: lag_rows(url) == 0, timeout,
               "the relay to have acknowledged everything")


def slot(url):
    return "skald_" + psql(url, "SELECT stream FROM skald.relays")[0][0]


def slot_state(url):
    """(active, wal_status, confirmed_flush_lsn), or None without a slot."""
    rows = psql(url, "SELECT active, wal_status, confirmed_flush_lsn FROM pg_replication_slots"
                     " WHERE slot_name = '%s'" % slot(url))
    return tuple(rows[0]) if rows else None


def wait_streaming(url, timeout=30):
    """Mode wal, and somebody reads the slot."""
    wait_until(lambda: mode_of(url) == "wal" and (slot_state(url) or ("f",))[0] == "t", timeout,
               "the relay to stream")


def epoch(url):
    return int(psql(url, "SELECT epoch FROM skald.relays")[0][0])


def drop_slot(url):
    """By hand, under whoever reads it."""
    name = slot(url)

    def gone():
        psql(url, "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE"
                  " slot_name = '%s' AND active" % name)
        psql(url, "SELECT pg_drop_replication_slot('%s')" % name)
        return True

    wait_until(gone, 20, "the slot to be dropped")


def applied_once(t, ids, happened, records):
    """Every id has one effect; of those that have not, say where their records lie."""
    happened = list(happened)
    for f in check.effects(ids, happened)[:5]:
        for r in records:
            if r.id == f.what:
                t.log("%s %s: [%d]@%d %s%s" % (f.kind, f.what, r.partition, r.offset, r.position,
                                               " recovered" if check.is_recovered(r) else ""))
    t.check_effects(ids, happened)


def settle(t, url, sink, topic, ids, **kwargs):
    """Everything is published, acknowledged and applied: check the topic and the effects.

    Returns the records. kwargs: for check.topic.
    """
    from appliers import consumer_is_done, effect_order, effects_of, wait_effects

    t.kafka.wait_count(topic, len(ids), timeout=90)
    wait_acked(url)
    records = t.check_topic(topic, expected=ids, version=VERSION, **kwargs)
    t.log("%d events, %d records, %d repetitions, %d recovered" % (
        len(ids), len(records), check.repetitions(records),
        sum(check.is_recovered(r) for r in records)))
    if sink:
        wait_effects(sink, len(ids), 90)
        wait_until(lambda: consumer_is_done(sink), 60, "the consumer to reach the end")
        applied_once(t, ids, effects_of(sink), records)
        check.require_none(check.effects_in_order(effect_order(sink)))
    return records
