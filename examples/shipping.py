#!/usr/bin/env python3
"""shipping.py - shipping.c again, in Python: the wire and the SQL serve any language.

Needs only psycopg and confluent-kafka. One transaction per message holds the
mark that it was consumed, the effect, and what it emits; Kafka's offset follows
and is only a hint. Which mark?

  skald.consume_once(group, id)   a row per message. Right whatever repeats: Kafka
        (rebalance, a crash before the offset was stored) or the relay (a crash
        between sending and recording; the record comes again at a new offset).
  skald.consume_offset(group, topic, partition, offset)   one row per partition, the
        highest offset applied. Cheaper, but it knows Kafka's repetitions only: for
        topics that no relay writes, read in order by one program at a time.

This program reads a relay's topic, so it uses consume_once. What can never be
applied goes to skald.dead_letter in the same transaction; trouble of the database
is nobody's fault: the message is tried again until the database is back.
"""

import argparse
import base64
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
CREATE TABLE IF NOT EXISTS public.catalogue (sku text PRIMARY KEY);
INSERT INTO public.catalogue VALUES ('lamp'), ('chair'), ('table'), ('rug'), ('mirror')
    ON CONFLICT DO NOTHING;
CREATE TABLE IF NOT EXISTS public.shipment (order_id text NOT NULL,
    sku text NOT NULL, quantity int NOT NULL, message_id text NOT NULL, saga_id uuid);
CREATE INDEX IF NOT EXISTS shipment_order ON public.shipment (order_id);
"""


class Refused(Exception):
    """This message can never be applied."""

    def __init__(self, cls, code, message):
        super().__init__(message)
        self.cls, self.code = cls, code


def options():
    p = argparse.ArgumentParser(description="ships what was ordered, each order once")
    p.add_argument("--database", default=os.environ.get("SKALD_DATABASE_URL"))
    p.add_argument("--brokers", default=os.environ.get("SKALD_KAFKA_BOOTSTRAP_SERVERS"))
    p.add_argument("--group", default="shipping-py")
    p.add_argument("--topic", default="shop.orders")
    p.add_argument("--emit", default="shop.shipments", help="topic of shop.order.shipped")
    for rate in ("--fail", "--crash", "--duplicate"):
        p.add_argument(rate, type=float, default=0, metavar="RATE")
    p.add_argument("--slow", type=float, default=0, metavar="MS")
    args = p.parse_args()
    if not args.database or not args.brokers:
        p.error("--database and --brokers, or SKALD_DATABASE_URL and "
                "SKALD_KAFKA_BOOTSTRAP_SERVERS, are needed")
    return args


def read_headers(msg):
    """What skald.context and skald.dead_letter take: name -> text, null, or base64."""
    headers, twice = {}, None
    for name, value in msg.headers() or []:
        if name in headers and name.startswith("ce_"):
            twice = name  # one value per name: which would be meant?
        try:
            headers[name] = None if value is None else value.decode()
            if "\0" in (headers[name] or ""):
                raise ValueError
        except ValueError:  # not UTF-8, or a NUL, which jsonb cannot hold
            headers[name] = {"base64": base64.b64encode(value).decode()}
    return headers, twice


def read_order(value):
    def digits(text):  # 10.00 stays 10.00
        return Decimal(text)

    try:
        order = json.loads(value or b"", parse_float=digits, parse_int=digits)
    except (ValueError, ArithmeticError) as error:
        raise Refused("DECODE", "json", "data: not JSON: %s" % error)
    rules = (("order_id", str), ("sku", str), ("quantity", Decimal), ("amount", Decimal))
    for name, kind in rules:
        if not isinstance(order, dict) or not isinstance(order.get(name), kind):
            raise Refused("FATAL", "field", "%s: a %s is required" % (
                name, "text" if kind is str else "number"))
    return order


def apply(conn, args, headers, value, effects):
    """The effect and what it emits, in the open transaction."""
    order = read_order(value)
    if "saga_id" in order:
        return  # its saga has it shipped
    if not conn.execute("SELECT FROM public.catalogue WHERE sku = %s", [order["sku"]]).rowcount:
        raise Refused("FATAL", "no_sku", "sku: the catalogue has no article '%s'" % order["sku"])
    shipped = conn.execute(
        "INSERT INTO public.shipment SELECT %(order_id)s, %(sku)s, %(quantity)s, %(id)s"
        " WHERE NOT EXISTS (SELECT FROM public.shipment"
        "  WHERE order_id = %(order_id)s AND message_id <> %(id)s)",
        {**order, "id": headers["ce_id"]}).rowcount
    if not shipped:
        return  # announced before, by another message
    effect = {"step": "ship", "op": "action", "order_id": order["order_id"],
              "amount": str(order["amount"]), "message_id": headers["ce_id"],
              "correlation_id": headers.get("ce_correlationid")}
    conn.execute(
        "INSERT INTO public.ledger (step, op, order_id, amount, message_id, correlation_id)"
        " VALUES (%(step)s, %(op)s, %(order_id)s, %(amount)s, %(message_id)s,"
        " %(correlation_id)s)", effect)
    for _ in range(1 + (random.random() < args.duplicate) if args.emit else 0):
        # correlation, causation and trace come from skald.context
        conn.execute(
            "SELECT skald.outbox_add_bytes(topic => %s, key => %s, type => %s, data => %s,"
            " content_type => 'application/json')",
            [args.emit, order["order_id"].encode(), "shop.order.shipped", value])
    time.sleep(args.slow / 1000)
    if random.random() < args.crash:
        os.kill(os.getpid(), signal.SIGKILL)
    effects.append(effect)


def consume(conn, args, msg):
    """One message, one transaction."""
    headers, twice = read_headers(msg)
    effects = []
    with conn.transaction():
        conn.execute("SELECT skald.context(%s)", [Jsonb(headers)])
        try:
            for name in ("ce_id", "ce_type"):
                if not isinstance(headers.get(name), str) or not headers[name]:
                    raise Refused("DECODE", "headers", "%s: a text is required" % name)
            if twice:
                raise Refused("DECODE", "headers", "%s: given twice" % twice)
            if headers["ce_type"] != "shop.order.placed":
                return
            identity = "%s %s" % (headers.get("ce_source"), headers["ce_id"])
            if not conn.execute("SELECT skald.consume_once(%s, %s)",
                                [args.group, identity]).fetchone()[0]:
                return
            with conn.transaction():  # a refusal undoes the effect, not the mark
                apply(conn, args, headers, msg.value(), effects)
        except (Refused, psycopg.DataError, psycopg.IntegrityError) as error:
            conn.execute(
                "SELECT skald.dead_letter(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                [args.group, msg.topic(), msg.partition(), msg.offset(), msg.key(),
                 msg.value(), Jsonb(headers), getattr(error, "cls", "FATAL"),
                 getattr(error, "code", None) or getattr(error, "sqlstate", ""),
                 str(error).splitlines()[0]])
    for effect in effects:
        print(json.dumps(effect), flush=True)


def consume_surely(conn, args, msg):
    """Until it is done: trouble of the database, or our own, is not the message's fault."""
    pause = 0.05
    while True:
        try:
            if conn is None or conn.closed:
                conn = psycopg.connect(args.database, autocommit=True,
                                       application_name="shipping.py", connect_timeout=5)
            if random.random() < args.fail:
                raise psycopg.OperationalError("failed on request")
            consume(conn, args, msg)
            return conn
        except psycopg.OperationalError as error:  # also 40001, 40P01, 55P03, 57P01
            print("shipping.py: again in a moment: %s" % str(error).splitlines()[0],
                  file=sys.stderr, flush=True)
            time.sleep(random.uniform(0, pause))
            pause = min(pause * 2, 1)


def main():
    args = options()
    random.seed(os.environ.get("SKALD_SEED"))
    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
    signal.signal(signal.SIGINT, lambda *_: stop.append(1))
    conn = psycopg.connect(args.database, autocommit=True, application_name="shipping.py")
    conn.execute(TABLES)
    consumer = Consumer({
        "bootstrap.servers": args.brokers, "group.id": args.group,
        "auto.offset.reset": "earliest", "session.timeout.ms": 10000,
        "enable.auto.offset.store": False, "fetch.message.max.bytes": 17 * 1024 * 1024,
        "allow.auto.create.topics": True})
    consumer.subscribe([args.topic])
    print("shipping.py: ready", file=sys.stderr, flush=True)
    while not stop:
        msg = consumer.poll(0.2)
        if msg is None:
            continue
        if msg.error():
            print("shipping.py: %s" % msg.error().str(), file=sys.stderr, flush=True)
            continue
        conn = consume_surely(conn, args, msg)
        consumer.store_offsets(msg)
    consumer.close()
    conn.close()


if __name__ == "__main__":
    main()
