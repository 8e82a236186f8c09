#!/usr/bin/env python3
"""up and down: a private PostgreSQL and a broker that stay, for trying things out.

What runs is written to .run/up.json; logs lie beside it. stdout is for eval.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True

from skaldtest.pg import Cluster, PgError, free_port, private_dir, psql  # noqa: E402
from skaldtest.proc import ROOT, bin_path, clean_env, set_args  # noqa: E402
from skaldtest.wait import TimedOut, wait_until  # noqa: E402

RUN = os.path.join(ROOT, ".run")
STATE = os.path.join(RUN, "up.json")
KAFKA_SH = os.path.join(ROOT, "tests", "support", "kafka.sh")
JARS = os.path.join(ROOT, ".deps", "kafka")
BEGAN = time.monotonic()


def say(text):
    print("[%4d s] %s" % (time.monotonic() - BEGAN, text), file=sys.stderr, flush=True)


def load():
    try:
        with open(STATE) as f:
            return json.load(f)
    except (OSError, ValueError):
        return {}


def save(state):
    os.makedirs(RUN, exist_ok=True)
    with open(STATE + ".new", "w") as f:
        json.dump(state, f, indent=1)
    os.replace(STATE + ".new", STATE)


def is_ours(pid, word):
    """The process still runs and is what it was (pids are used again)."""
    try:
        with open("/proc/%d/cmdline" % pid, "rb") as f:
            return word in f.read().decode(errors="replace")
    except (OSError, TypeError):
        return False


# --- PostgreSQL -----------------------------------------------------------------------------


def cluster_of(state):
    cluster = Cluster(state["pg"]["dir"])
    cluster.port = state["pg"]["port"]
    return cluster


def up_postgres(state):
    if "pg" in state and cluster_of(state).is_running():
        say("PostgreSQL runs already")
        return
    if "pg" in state and os.path.isdir(state["pg"]["dir"]):
        say("PostgreSQL starts again ...")
        cluster_of(state).start()
        return
    say("PostgreSQL: a new private cluster ...")
    cluster = Cluster(private_dir("skald-up-"))
    cluster.create()
    state["pg"] = {"dir": cluster.dir, "port": cluster.port}
    save(state)
    cluster.sql("CREATE DATABASE skald")


def down_postgres(state):
    if "pg" not in state:
        return
    cluster = cluster_of(state)
    if cluster.is_running():
        say("PostgreSQL stops ...")
        cluster.stop("fast")
    shutil.rmtree(cluster.dir, ignore_errors=True)
    del state["pg"]
    save(state)


# --- broker -----------------------------------------------------------------------------------


def broker_runs(state):
    broker = state.get("broker")
    if not broker:
        return False
    if broker["kind"] == "dev":
        return is_ours(broker["pid"], "skaldd")
    host, port = broker["bootstrap"].split(",")[0].rsplit(":", 1)
    import socket

    try:
        with socket.create_connection((host, int(port)), 2):
            return True
    except OSError:
        return False


def up_broker(state, kind, brokers):
    if broker_runs(state):
        if (state["broker"]["kind"], state["broker"]["brokers"]) == (kind, brokers):
            say("the broker runs already")
            return
        say("another broker is wanted than the one that runs")
    down_broker(state)
    if kind == "kafka":
        say("Apache Kafka starts, %d broker%s ..." % (brokers, "s" if brokers > 1 else ""))
        workdir = private_dir("skald-kafka-")
        state["broker"] = {"kind": kind, "brokers": brokers, "dir": workdir, "bootstrap": ""}
        save(state)
        started = subprocess.run(
            [KAFKA_SH, "start", JARS, workdir, "--brokers", str(brokers)],
            stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        if started.returncode:
            raise PgError("Apache Kafka does not start")
        state["broker"]["bootstrap"] = started.stdout.strip().splitlines()[-1]
    else:
        say("the dev broker starts ...")
        state["broker"] = start_dev_broker(os.path.join(RUN, "dev-broker.log"))
        say("dev broker: in memory only, at most 5 MiB a partition, no admin calls")
    save(state)


def start_dev_broker(log_path):
    port = free_port()
    settings = {"dev_broker.listen": "127.0.0.1:%d" % port, "http.listen": "127.0.0.1:0"}
    with open(log_path, "ab") as log:
        popen = subprocess.Popen(
            [bin_path("skaldd"), "--roles", "dev-broker"] + set_args(settings),
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=clean_env(),
            start_new_session=True, cwd="/")
    import socket

    def answers():
        if popen.poll() is not None:
            with open(log_path, errors="replace") as f:
                raise PgError("the dev broker ended:\n" + f.read()[-2000:])
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True

    wait_until(answers, 20, "the dev broker to listen")
    return {"kind": "dev", "brokers": 1, "pid": popen.pid,
            "bootstrap": "127.0.0.1:%d" % port}


def down_broker(state):
    broker = state.get("broker")
    if not broker:
        return
    say("the broker stops ...")
    if broker["kind"] == "dev":
        if is_ours(broker["pid"], "skaldd"):
            os.kill(broker["pid"], signal.SIGTERM)
            try:
                wait_until(lambda: not is_ours(broker["pid"], "skaldd"), 5, "its end")
            except TimedOut:
                os.kill(broker["pid"], signal.SIGKILL)
    elif os.path.isdir(broker["dir"]):
        subprocess.run([KAFKA_SH, "stop", broker["dir"]], stdout=sys.stderr)
        shutil.rmtree(broker["dir"], ignore_errors=True)
    del state["broker"]
    save(state)


# --- verbs ------------------------------------------------------------------------------------


def up(args):
    if args.brokers != 1 and not args.kafka:
        sys.exit("dev up: --brokers needs --kafka: the dev broker is one")
    state = load()
    up_postgres(state)
    up_broker(state, "kafka" if args.kafka else "dev", args.brokers)
    url = cluster_of(state).url("skald")
    psql(url, "SELECT 1")
    say("programs: export PATH=\"%s:$PATH\"" % os.path.dirname(bin_path("skald")))
    say("first: skald db migrate")
    print("export SKALD_DATABASE_URL=%s SKALD_KAFKA_BOOTSTRAP_SERVERS=%s"
          % (url, state["broker"]["bootstrap"]), flush=True)


def down(_args):
    state = load()
    if not state:
        say("nothing runs")
    down_broker(state)
    down_postgres(state)
    if os.path.exists(STATE):
        os.remove(STATE)


def main():
    parser = argparse.ArgumentParser(prog="./dev")
    verbs = parser.add_subparsers(dest="verb", required=True)
    u = verbs.add_parser("up")
    u.add_argument("--kafka", action="store_true", help="Apache Kafka, not the dev broker")
    u.add_argument("--brokers", type=int, default=1, choices=(1, 3), help="of Apache Kafka")
    verbs.add_parser("down")
    args = parser.parse_args()
    try:
        {"up": up, "down": down}[args.verb](args)
    except (PgError, TimedOut) as error:
        sys.exit("dev %s: %s" % (args.verb, error))


if __name__ == "__main__":
    main()
