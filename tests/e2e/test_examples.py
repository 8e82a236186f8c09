"""The example services and the demo: what a newcomer runs must hold under trouble."""

import os
import subprocess
import sys

from skaldtest import check, e2e, psql, wait_until
from skaldtest.proc import ROOT, clean_env

import writers


def shop(t, name, args_order=(), args_shipping=()):
    """Both services on databases and a topic of the test's own."""
    orders, shipping = t.database(name="orders"), t.database(name="shipping")
    # Small batches: a crash costs its whole batch, so of a large one with --crash hardly
    # any would ever be committed.
    settings = {"service.session_timeout": "6s", "service.group": t.group(name),
                "service.batch": "20"}
    seller = t.service("skald-example-order", orders, settings=settings, args=args_order)
    shipper = t.service("skald-example-shipping", shipping, settings=settings,
                        args=args_shipping)
    return orders, shipping, seller, shipper


def placed(orders):
    return dict(psql(orders, "SELECT message_id, order_id FROM public.ledger"))


def applied(shipping):
    return [r[0] for r in psql(shipping, "SELECT message_id FROM public.ledger")]


def ours(t, orders, shipping):
    """Placed by this test (the topic's name is the example's own, so others may use it)."""
    mine = placed(orders)
    return mine, [m for m in applied(shipping) if m in mine]


@e2e("e2e.examples.trouble", records=400, effects=400, timeout=150)
def trouble(t):
    """Rollbacks, failing and crashing handlers, orders announced twice: one effect each."""
    orders, shipping, seller, shipper = shop(
        t, "trouble",
        ("--rate", 150, "--count", 600, "--rollback", 0.2, "--duplicate", 0.1,
         "--prefix", t.tag + "-"),
        ("--fail", 0.01, "--crash", 0.003, "--slow", 1))

    are_placed = writers.orders_placed(orders, 600)

    def done():
        is_over = are_placed()
        mine, effects = ours(t, orders, shipping)
        if shipper.starts == 1 and len(effects) > 100:
            shipper.kill()  # at least once, whatever the dice say
        if not shipper.alive:
            shipper.start()
        return is_over and len(effects) >= len(mine)

    wait_until(done, 120, "every order to be shipped", every=0.3)
    mine, effects = ours(t, orders, shipping)
    # an order that was announced twice is two messages, and one shipment
    shipped = psql(shipping, "SELECT order_id FROM public.shipment")
    check.require_none(check.effects(mine.values(), [
        r[0] for r in shipped if r[0].startswith(t.tag)]), "shipments")
    t.checked(records=len(mine))
    t.check_effects(mine, effects)
    kept = [r[0] for r in psql(orders, "SELECT order_id FROM public.orders")]
    assert sorted(kept) == sorted(mine.values()), "orders and ledger differ"
    assert shipper.starts > 1, "no crash happened"
    t.log("%d crashes" % (shipper.starts - 1))
    lines = seller.out_json()
    assert len(lines) == len(mine) and {x["op"] for x in lines} == {"action"}, len(lines)
    dead = psql(shipping, "SELECT count(*) FROM skald.dead_letters")
    assert dead == [["0"]], dead


@e2e("e2e.examples.python_equals_c", effects=200, timeout=120)
def python_equals_c(t):
    """Both consumers read the same topic into databases of their own: the same ledgers."""
    orders, in_c, _, _ = shop(t, "twins", ("--rate", 200, "--count", 200,
                                            "--prefix", t.tag + "-"))
    in_python = t.database(name="shipping_py")
    t.python("examples/shipping.py", "--database", in_python, "--brokers", t.kafka.bootstrap,
             "--group", t.group("py"), name="shipping-py")
    wanted = wait_until(lambda: len(placed(orders)) >= 200 and placed(orders), 60, "orders")
    rows = ("SELECT order_id, amount, message_id, correlation_id, step, op FROM public.ledger"
            " WHERE order_id LIKE '%s%%' ORDER BY 1" % t.tag)
    for url in (in_c, in_python):
        wait_until(lambda: len(psql(url, rows)) >= len(wanted), 60, "effects in " + url)
    assert psql(in_c, rows) == psql(in_python, rows), "the two ledgers differ"
    for url in (in_c, in_python):
        t.check_effects(wanted.values(), [r[0] for r in psql(url, rows)])


def demo(t, *args):
    done = subprocess.run([sys.executable, os.path.join(ROOT, "examples", "demo.py"), *args],
                          env=clean_env({k: v for k, v in os.environ.items()
                                         if k in ("SKALD_BIN", "SKALD_PATIENCE")}),
                          capture_output=True, text=True, timeout=300,
                          stdin=subprocess.DEVNULL)
    t.log(done.stdout[-1500:] + done.stderr[-1500:])
    wide = [x for x in done.stdout.splitlines() if len(x) > 80]
    assert not wide, wide
    t.checked(effects=sum(int(x.split()[5]) for x in done.stdout.splitlines()
                          if x.strip().startswith("applied by the shipping service")))
    return done


@e2e("e2e.demo.reconciles", effects=500, kafka=False, timeout=320)
def reconciles(t):
    done = demo(t)
    assert done.returncode == 0, done.returncode
    assert done.stdout.splitlines()[-1].startswith("ok: nothing lost, nothing doubled")


@e2e("e2e.demo.control_double", effects=500, kafka=False, timeout=320)
def control_double(t):
    """The verdict must be able to fail."""
    done = demo(t, "--break", "double")
    assert done.returncode == 1, done.returncode
    assert "DOUBLED: order" in done.stdout and "FAILED: the reconciliation" in done.stdout


@e2e("e2e.demo.control_charge", effects=500, kafka=False, timeout=320)
def control_charge(t):
    """So must that of its second half, the sagas."""
    done = demo(t, "--break", "charge")
    assert done.returncode == 1, done.returncode
    assert "DOUBLED: order s-" in done.stdout and "FAILED: the reconciliation" in done.stdout
