#!/usr/bin/env python3
"""inventory.py - inventory.c again, in Python: a participant needs SQL and Kafka, no library.

Needs only psycopg and confluent-kafka. One transaction per command: the barrier
says whether to work, the work, the answer. No memory of its own, no dedupe table:
skald.participate knows what ran before and repeats its answer, and a relay
(skaldd with a [source.*] on this database) publishes the answers. Kafka's offset
follows the commit and is only a hint.
"""

import argparse
import json
import os
import random
import signal
import sys
import time
from decimal import Decimal

import psycopg
from confluent_kafka import Consumer
from psycopg.types.json import Jsonb

TABLES = """
CREATE TABLE IF NOT EXISTS public.ledger (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(), saga_id uuid, step text,
    op text, order_id text, amount numeric, message_id text, correlation_id text);
CREATE TABLE IF NOT EXISTS public.stock (sku text PRIMARY KEY,
    on_hand int NOT NULL CHECK (on_hand >= 0));
INSERT INTO public.stock VALUES ('lamp', 1000000), ('chair', 1000000), ('table', 1000000),
    ('rug', 1000000), ('mirror', 1000000) ON CONFLICT DO NOTHING;
CREATE TABLE IF NOT EXISTS public.reservation (
    reservation bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, saga_id uuid NOT NULL,
    step text NOT NULL, order_id text NOT NULL, sku text NOT NULL, quantity int NOT NULL);
CREATE INDEX IF NOT EXISTS reservation_saga ON public.reservation (saga_id);
"""


class No(Exception):
    """A business no: the answer is `failure`, the saga decides what follows."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


def options():
    p = argparse.ArgumentParser(description="keeps goods for orders of a saga")
    p.add_argument("--database", default=os.environ.get("SKALD_DATABASE_URL"))
    p.add_argument("--brokers", default=os.environ.get("SKALD_KAFKA_BOOTSTRAP_SERVERS"))
    p.add_argument("--group", default="inventory-py")
    p.add_argument("--topic", default="inventory.commands")
    p.add_argument("--participant", default="inventory")
    for rate in ("--fail", "--crash", "--duplicate"):
        p.add_argument(rate, type=float, default=0, metavar="RATE")
    p.add_argument("--slow", type=float, default=0, metavar="MS")
    args = p.parse_args()
    if not args.database or not args.brokers:
        p.error("--database and --brokers, or SKALD_DATABASE_URL and "
                "SKALD_KAFKA_BOOTSTRAP_SERVERS, are needed")
    return args


def reserve(conn, saga, data):
    """Take from the stock; the effect and the answer."""
    if not isinstance(data.get("sku"), str) or not isinstance(data.get("quantity"), int):
        raise No("field", "sku, quantity: a text and a whole number are required")
    row = conn.execute(
        "WITH taken AS (UPDATE public.stock SET on_hand = on_hand - %(quantity)s"
        "  WHERE sku = %(sku)s AND on_hand >= %(quantity)s AND %(quantity)s > 0"
        "  RETURNING sku)"
        " INSERT INTO public.reservation (saga_id, step, order_id, sku, quantity)"
        " SELECT %(id)s, %(step)s, %(order_id)s, sku, %(quantity)s FROM taken"
        " RETURNING reservation", {**saga, **data}).fetchone()
    if not row:
        raise No("out_of_stock", "sku: not %s of '%s' left" % (data["quantity"], data["sku"]))
    return data["order_id"], {"reservation": "r-%d" % row[0]}


def release(conn, saga, _data):
    """By saga and step, not by the reservation's number: its answer may never have arrived."""
    row = conn.execute(
        "WITH gone AS (DELETE FROM public.reservation WHERE saga_id = %(id)s AND step = %(step)s"
        "  RETURNING order_id, sku, quantity),"
        " back AS (UPDATE public.stock SET on_hand = on_hand + g.quantity FROM gone AS g"
        "  WHERE stock.sku = g.sku)"
        " SELECT order_id FROM gone", saga).fetchone()
    return row and row[0], {}


WORK = {"inventory.reserve": reserve, "inventory.release": release}


def handle(conn, args, h, value, effects):
    """The barrier said run: do the work in a savepoint, then answer."""
    saga = {"id": h["ce_sagaid"], "step": h["ce_sagastep"]}
    try:
        with conn.transaction():  # a business no must not undo the barrier's row
            data = json.loads(value or b"{}", parse_float=Decimal)
            data.setdefault("order_id", h.get("ce_correlationid"))
            if h["ce_type"] not in WORK:
                raise No("type", "ce_type: %s is not served here" % h["ce_type"])
            order_id, result = WORK[h["ce_type"]](conn, saga, data)
            outcome = "success"
            if order_id:
                effect = {"saga_id": saga["id"], "step": saga["step"], "op": h["ce_sagaop"],
                          "order_id": order_id, "message_id": h["ce_id"],
                          "correlation_id": h.get("ce_correlationid")}
                conn.execute(
                    "INSERT INTO public.ledger (saga_id, step, op, order_id, message_id,"
                    " correlation_id) VALUES (%(saga_id)s, %(step)s, %(op)s, %(order_id)s,"
                    " %(message_id)s, %(correlation_id)s)", effect)
                effects.append(effect)
            time.sleep(args.slow / 1000)
            if random.random() < args.crash:
                os.kill(os.getpid(), signal.SIGKILL)
    except (No, ValueError) as error:
        outcome = "failure"
        result = {"code": getattr(error, "code", "json"), "message": str(error)}
    conn.execute("SELECT skald.reply(headers => %s, participant => %s, outcome => %s, data => %s)",
                 [Jsonb(h), args.participant, outcome, Jsonb(result)])


def consume(conn, args, msg):
    """One command, one transaction."""
    effects = []
    try:
        h = {k: v.decode() for k, v in msg.headers() or [] if v is not None}
        with conn.transaction():
            verdict = conn.execute(
                "SELECT skald.participate(headers => %s, participant => %s)",
                [Jsonb(h), args.participant]).fetchone()[0]
            if verdict == "run":
                handle(conn, args, h, msg.value(), effects)
    except psycopg.OperationalError:
        raise
    except (psycopg.DatabaseError, UnicodeDecodeError) as error:
        conn.execute(  # not a command that anybody could answer
            "SELECT skald.dead_letter(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [args.group, msg.topic(), msg.partition(), msg.offset(), msg.key(), msg.value(),
             Jsonb({}), "DECODE", getattr(error, "sqlstate", None) or "headers",
             str(error).splitlines()[0]])
    for effect in effects:
        print(json.dumps(effect), flush=True)


def consume_surely(conn, args, msg):
    """Until it is done: trouble of the database, or our own, is not the command's fault."""
    pause = 0.05
    while True:
        try:
            if conn is None or conn.closed:
                conn = psycopg.connect(args.database, autocommit=True,
                                       application_name="inventory.py", connect_timeout=5)
            if random.random() < args.fail:
                raise psycopg.OperationalError("failed on request")
            for _ in range(1 + (random.random() < args.duplicate)):
                consume(conn, args, msg)  # twice: the barrier repeats its answer
            return conn
        except psycopg.OperationalError as error:  # also 40001, 40P01, 55P03, 57P01
            print("inventory.py: again in a moment: %s" % str(error).splitlines()[0],
                  file=sys.stderr, flush=True)
            time.sleep(random.uniform(0, pause))
            pause = min(pause * 2, 1)


def main():
    args = options()
    random.seed(os.environ.get("SKALD_SEED"))
    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
    signal.signal(signal.SIGINT, lambda *_: stop.append(1))
    conn = psycopg.connect(args.database, autocommit=True, application_name="inventory.py")
    conn.execute(TABLES)
    consumer = Consumer({
        "bootstrap.servers": args.brokers, "group.id": args.group,
        "auto.offset.reset": "earliest", "session.timeout.ms": 10000,
        "enable.auto.offset.store": False, "allow.auto.create.topics": True})
    consumer.subscribe([args.topic])
    print("inventory.py: ready", file=sys.stderr, flush=True)
    while not stop:
        msg = consumer.poll(0.2)
        if msg is None:
            continue
        if msg.error():
            print("inventory.py: %s" % msg.error().str(), file=sys.stderr, flush=True)
            continue
        conn = consume_surely(conn, args, msg)
        consumer.store_offsets(msg)
    consumer.close()
    conn.close()


if __name__ == "__main__":
    main()
