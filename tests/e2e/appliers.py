"""The tests' consumer (applier.c) and what it did."""

from skaldtest import check, psql, wait_until

VERSION = check.json_field("version")


def effects_of(url):
    return [row[0] for row in psql(url, "SELECT message_id FROM public.effect")]


def effect_order(url):
    return [(k, int(v)) for k, v in psql(
        url, "SELECT key, version FROM public.effect WHERE version IS NOT NULL ORDER BY n")]


def applier(t, url, topic, failpoint=None, group=None, args=(), settings=None):
    """The tests' consumer; its sessions are short, so that a take-over is quick."""
    all_settings = {"service.group": group or t.group("applier"),
                    "service.session_timeout": "6s", "service.batch": "50"}
    all_settings.update(settings or {})
    return t.service("skald-test-applier", url, "applier", failpoint=failpoint,
                     settings=all_settings, args=["--topic", topic] + list(args))


def wait_effects(url, count, timeout=60):
    wait_until(lambda: len(effects_of(url)) >= count, timeout, "%d effects" % count)


def consumer_is_done(url):
    """Of every partition the end is known, and reached."""
    return psql(url, "SELECT count(*) > 0 AND count(lag) = count(*) AND sum(lag) = 0"
                     " FROM skald.consumers")[0][0] == "t"
