"""The invariants, as one checker for tests and for their negative controls alike.

Each function returns a list of Finding; an empty list means that all held.
Kinds: lost      expected and never seen
       phantom   seen and never expected (rolled back, or gone after a crash)
       inverted  per key, first appearances not in version order
       changed   a repetition with another stream, position, key or payload
       unordered within (stream, partition) first appearances do not rise
       doubled   an effect that happened more than once
"""

import json
from collections import namedtuple

Finding = namedtuple("Finding", "kind what detail")


class Broken(AssertionError):
    pass


def record_id(record):
    return record.header("ce_id")


def json_field(name):
    """version=json_field("version"): reads it from the record's JSON value."""
    return lambda record: json.loads(record.value)[name]


def _place(record):
    return "%s[%d]@%d" % (record.topic, record.partition, record.offset)


def first_appearances(records, ident=record_id):
    """The records without their repetitions, in partition and offset order."""
    seen = set()
    first = []
    for r in sorted(records, key=lambda r: (r.topic, r.partition, r.offset)):
        i = ident(r)
        if i not in seen:
            seen.add(i)
            first.append(r)
    return first


def topic(records, expected=None, ident=record_id, version=None, positions=True,
          recovered=False):
    """Check what the relay published.

    records   as Kafka.read_topic returns them
    expected  ids that were committed, in any order; None: not checked
    ident     record -> id; the ce_id, unless the writer counts by something else
    version   record -> number that rises with every commit of the record's key; None: not checked
    positions False for readers that give none (controls)
    recovered True: a record flagged ce_recovered may repeat another under a new position
    """
    found = []
    by_id = {}
    for r in sorted(records, key=lambda r: (r.topic, r.partition, r.offset)):
        by_id.setdefault(ident(r), []).append(r)
    if expected is not None:
        want = set(expected)
        for i in sorted(want - set(by_id), key=str):
            found.append(Finding("lost", str(i), "committed, never published"))
        for i in sorted(set(by_id) - want, key=str):
            found.append(Finding("phantom", str(i),
                                 "published at %s, never committed" % _place(by_id[i][0])))
    for i, group in by_id.items():
        found += _repetitions(i, group, positions, recovered)
    first = first_appearances(records, ident)
    if version is not None:
        found += _order(first, version)
    if positions:
        found += _positions(first)
    return found


def is_recovered(record):
    return record.header("ce_recovered") == "true"


def repetitions(records, ident=record_id):
    """How many records repeat another one."""
    return len(records) - len({ident(r) for r in records})


def _repetitions(i, group, positions, recovered):
    found = []
    a = group[0]
    for b in group[1:]:
        same = a.key == b.key and a.value == b.value and a.topic == b.topic
        same = same and a.partition == b.partition
        if positions and not (recovered and is_recovered(b)):
            same = same and (a.stream, a.position) == (b.stream, b.position)
        same = same and record_id(a) == record_id(b)
        if not same:
            found.append(Finding("changed", str(i), "%s (%s %s) repeated at %s (%s %s)" % (
                _place(a), a.stream, a.position, _place(b), b.stream, b.position)))
    return found


def _order(first, version):
    found = []
    last = {}
    for r in first:
        place = (r.topic, r.key)
        v = version(r)
        if place in last and v <= last[place][0]:
            found.append(Finding("inverted", repr(r.key), "version %s at %s after version %s at %s"
                                 % (v, _place(r), last[place][0], _place(last[place][1]))))
        if place not in last or v > last[place][0]:
            last[place] = (v, r)
    return found


def in_position_order(records, version):
    """Per key versions rise with the position, wherever the records lie: for topics that
    got more partitions, where a key moves and offsets compare nothing. One stream only."""
    first = sorted(first_appearances(records), key=lambda r: r.position)
    return _order(first, version)


def _positions(first):
    found = []
    last = {}
    for r in first:
        if not r.stream or not r.position:
            found.append(Finding("changed", str(record_id(r)),
                                 "%s has no ce_stream or ce_sequence" % _place(r)))
            continue
        place = (r.topic, r.stream, r.partition)
        if place in last and r.position <= last[place].position:
            found.append(Finding("unordered", str(record_id(r)), "%s %s after %s %s" % (
                _place(r), r.position, _place(last[place]), last[place].position)))
        else:
            last[place] = r
    return found


def effects(expected, happened):
    """Check what consumers did: each expected id exactly once.

    happened  one entry per effect (the ledger's message_id or order_id column)
    """
    found = []
    count = {}
    for i in happened:
        count[i] = count.get(i, 0) + 1
    want = set(expected)
    for i in sorted(want - set(count), key=str):
        found.append(Finding("lost", str(i), "no effect"))
    for i in sorted(set(count) - want, key=str):
        found.append(Finding("phantom", str(i), "an effect of nothing that was sent"))
    for i, n in sorted(count.items(), key=lambda x: str(x[0])):
        if n > 1:
            found.append(Finding("doubled", str(i), "%d effects" % n))
    return found


def effects_in_order(rows):
    """rows: (key, version) in the order of the effects; per key versions must rise."""
    found = []
    last = {}
    for key, version in rows:
        if key in last and version <= last[key]:
            found.append(Finding("inverted", str(key), "effect of version %s after %s"
                                 % (version, last[key])))
        last[key] = max(version, last.get(key, version))
    return found


def kinds(findings):
    """{"lost": 2, "doubled": 1}"""
    count = {}
    for f in findings:
        count[f.kind] = count.get(f.kind, 0) + 1
    return count


def explain(findings, limit=10):
    lines = ["%s %s: %s" % f for f in findings[:limit]]
    if len(findings) > limit:
        lines.append("... %d findings in all: %s" % (len(findings), kinds(findings)))
    return "\n".join(lines)


def require_none(findings, what=""):
    """The test's side: nothing may have been found."""
    if findings:
        raise Broken("%s broken invariants: %s\n%s" % (what, kinds(findings), explain(findings)))


def require_kind(findings, kind, what=""):
    """The control's side: the checker must name at least one finding of this kind."""
    if kind not in kinds(findings):
        raise Broken("%s the control was not caught: no '%s' among %s"
                     % (what, kind, kinds(findings) or "no findings"))
