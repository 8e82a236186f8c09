"""SIGKILL between any two steps of the orchestrator and of a participant, then count: no effect
twice, none lost or left behind, every saga ends. Controls: without the barrier it shows."""

from skaldtest import check, e2e, psql, wait_until

import writers
from sagas import ORCHESTRATOR, PARTICIPANT, SERVICES, Shop

SAGAS = 40
LIMIT = ["--limit", "100"]


def start_mixed(shop, count=SAGAS):
    """Every fourth order is too dear: compensated. Returns the outcomes to come."""
    wanted = {}
    for n in range(count // 4):
        wanted.update({i: "completed" for i in shop.start(3)})
        wanted[shop.start(1, amount=5000)[0]] = "failed"
    return wanted


def kill_daemon(t, failpoint, nth):
    shop = Shop(t).all(payment=LIMIT)
    first = shop.daemon(failpoint="%s:%d" % (failpoint, nth))
    shop.deploy()
    wanted = start_mixed(shop)
    first.wait_killed(60)
    shop.daemon()
    shop.wait_ended(90)
    shop.check(wanted)


for _name in ORCHESTRATOR:
    for _nth in (1, 5):
        if _name == "orchestrator_before_offset" and _nth > 1:
            continue  # offsets go to Kafka once a second: the first passage is enough
        e2e("e2e.saga.crash.%s.%d" % (_name, _nth), records=SAGAS, effects=SAGAS * 5 // 2)(
            lambda t, f=_name, n=_nth: kill_daemon(t, f, n))


def kill_participant(t, failpoint, service):
    shop = Shop(t)
    for name in ("inventory", "payment", "shipping"):
        point = "%s:%d" % (failpoint, 1 if "offset" in failpoint else 3)
        shop.service(name, *(LIMIT if name == "payment" else ()),
                     failpoint=point if name == service else None)
    shop.daemon()
    shop.deploy()
    wanted = start_mixed(shop)
    shop.procs[service].wait_killed(60)
    shop.service(service, *(LIMIT if service == "payment" else ()))
    shop.wait_ended(90)
    shop.check(wanted)


for _n, _name in enumerate(PARTICIPANT):
    _service = ("inventory", "payment", "shipping")[_n % 3]
    e2e("e2e.saga.crash." + _name, records=SAGAS, effects=SAGAS * 5 // 2)(
        lambda t, f=_name, s=_service: kill_participant(t, f, s))


def events(shop):
    return int(psql(shop.url, "SELECT count(*) FROM skald.saga_events")[0][0])


@e2e("e2e.saga.crash.daemon_again_and_again", records=120, effects=300)
def daemon_again_and_again(t):
    """Under load the only daemon dies four times, in whatever phase it is."""
    shop = Shop(t).all(payment=LIMIT)
    daemon = shop.daemon()
    shop.deploy()
    wanted = {}
    for round_ in range(4):
        target = events(shop) + t.rng.randrange(28, 28 * 6)  # 28 sagas make more than that
        wanted.update(start_mixed(shop, 28))
        wait_until(lambda: events(shop) >= target, 30, "the sagas to go on")
        daemon.kill()
        daemon.start()
        daemon.wait_ready()
    wanted.update(start_mixed(shop, 8))
    shop.wait_ended(90)
    shop.check(wanted)


@e2e("e2e.saga.crash.python_participant", records=80, effects=200)
def python_participant(t):
    """The participant in Python beside those in C; it crashes by itself, repeats commands and
    is killed; so is the payment service. Its outbox is relayed by the daemon."""
    shop = Shop(t)
    args = ["--duplicate", "0.2", "--crash", "0.02"]
    python = shop.python(*args)
    shop.service("payment", *LIMIT)
    shop.service("shipping")
    shop.daemon(settings={"source.inventory.url": shop.urls["inventory"]})
    shop.deploy()
    wanted = start_mixed(shop, 40)

    def ended(count):
        if not python.alive:
            python.start()
        return shop.statuses()["finished"] >= count

    wait_until(lambda: ended(5), 60, "the first sagas to end", every=0.1)
    python.kill()
    shop.procs["payment"].kill()
    shop.service("payment", *LIMIT)
    wanted.update(start_mixed(shop, 40))
    wait_until(lambda: ended(len(shop.ids)), 120, "every saga to end", every=0.1)
    shop.check(wanted)
    t.log("inventory.py was started %d times" % python.starts)
    assert python.starts > 1


@e2e("e2e.saga.crash.control_no_barrier", records=20, effects=20)
def control_no_barrier(t):
    """A participant whose barrier forgets, and a command that comes twice: the checker names
    a doubled effect."""
    shop = Shop(t)
    shop.python("--duplicate", "1")
    psql(shop.urls["inventory"], """
        CREATE FUNCTION public.forget() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
        BEGIN
            DELETE FROM skald.barrier AS b WHERE b.participant = NEW.participant
               AND b.idempotency_key = NEW.idempotency_key AND b.state = 'answered';
            RETURN NULL;
        END $$;
        CREATE CONSTRAINT TRIGGER forget AFTER INSERT OR UPDATE ON skald.barrier
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.forget()""")
    shop.service("payment", *LIMIT)
    shop.service("shipping")
    shop.daemon(settings={"source.inventory.url": shop.urls["inventory"]})
    shop.deploy()
    start_mixed(shop, 20)
    shop.wait_ended(90)
    check.require_kind(shop.findings(), "doubled")
    t.checked(records=len(shop.ids), effects=len(shop.ledger()))


@e2e("e2e.saga.crash.four_services_in_trouble", records=150, effects=300, timeout=240)
def four_services_in_trouble(t):
    """The order service starts sagas in its own transactions, some of which roll back; every
    participant fails, sleeps, crashes and announces twice by chance; the daemon is killed."""
    trouble = ["--fail", "0.02", "--crash", "0.01", "--slow", "1", "--duplicate", "0.1"]
    shop = Shop(t)
    for name in SERVICES:
        shop.service(name, *trouble, *(["--limit", "90"] if name == "payment" else []),
                     "--emit", t.topic_name("announced"))
    daemon = shop.daemon()
    shop.deploy()
    wait_until(lambda: psql(shop.url, "SELECT 1 FROM skald.installation"), 30,
               "the orchestrator to serve the database")
    seller = t.service("skald-example-order", shop.url, "order", args=[
        "--rate", 60, "--count", 200, "--rollback", 0.15, "--prefix", t.tag + "-",
        "--duplicate", 0.1], settings={"topics.partitions": "4"})

    are_placed = writers.orders_placed(shop.url, 200)

    def over():
        is_over = are_placed()
        for p in shop.procs.values():
            if not p.alive:
                p.start()
        sagas = shop.statuses()
        if daemon.starts == 1 and sagas["finished"] > 20:
            daemon.kill()
            daemon.start()
        return is_over and len(sagas) == 1 and sagas["finished"]

    wait_until(over, 180, "every order's saga to end", every=0.2)
    orders = psql(shop.url, "SELECT order_id FROM public.orders ORDER BY 1")
    keys = psql(shop.url, "SELECT id, key FROM skald.sagas ORDER BY 2")
    assert [r[0] for r in orders] == [r[1] for r in keys], "orders and sagas differ"
    shop.ids += [r[0] for r in keys]
    assert seller.alive and daemon.starts == 2
    shop.check()
    t.log("starts: %s" % {n: p.starts for n, p in shop.procs.items()})
