#!/usr/bin/env python3
"""skaldd alive: outages at start and later, drain, reload, systemd, several sources."""

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest
import urllib.request

from skaldtest.pg import Cluster, free_port, psql
from skaldtest.proc import bin_path, clean_env, make_skaldd, run_tool
from skaldtest.wait import wait_until

NO_KAFKA = "127.0.0.1:1"


class Life(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="skald-daemon-")
        self.addCleanup(shutil.rmtree, self.dir)
        self.procs = []
        self.addCleanup(lambda: [p.kill() for p in self.procs])

    def daemon(self, name, url, bootstrap, **more):
        p = make_skaldd(name, url, bootstrap, self.dir, failpoints=False, **more)
        self.procs.append(p)
        return p

    def broker(self, port=0):
        """The dev broker as a process of its own; its address."""
        p = self.daemon("broker", None, None, roles="dev-broker",
                        settings={"dev_broker.listen": "127.0.0.1:%d" % port}).start()
        p.wait_ready()
        line = p.out_text().strip()
        self.assertRegex(line, r"^dev broker on 127\.0\.0\.1:\d+$")
        self.assertIn("memory", p.log_text())  # its limits, where a user sees them
        return line.split()[-1]

    def cluster(self):
        pg = Cluster().create()
        self.addCleanup(pg.destroy)
        return pg

    def migrated(self, pg, name):
        url = pg.create_database(name)
        run_tool("skald", "--database", url, "db", "migrate")
        return url

    def readyz(self, p):
        code, text = p.http("/readyz")
        return code, json.loads(text)

    def trouble(self, p, source="main"):
        return {x["source"]: x.get("trouble") for x in self.readyz(p)[1]["relays"]}[source]

    def published(self, url):
        return int(psql(url, "SELECT count(*) FROM skald.outbox AS o, skald.relay AS r"
                             " WHERE pg_visible_in_snapshot(o.xid, r.acked_snapshot)")[0][0])

    def add(self, url):
        psql(url, "SELECT skald.outbox_add('shop.orders', 'k', 't', '{}')")

    # -- what the relay does -------------------------------------------------------------------

    def relay(self, p):
        return self.readyz(p)[1]["relays"][0]

    def test_readyz_tells_mode_and_parked_keys(self):
        """A topic that is missing keeps its keys waiting, nobody else and not the daemon."""
        pg = self.cluster()
        url = self.migrated(pg, "orders")
        p = self.daemon("skaldd", url, self.broker(), settings={
            "topics.create": "false", "relay.mode": "wal"}).start()
        p.wait_ready(60)
        wait_until(lambda: self.relay(p).get("mode") == "wal", 30, "the relay to stream")
        self.assertEqual(self.relay(p)["parked_keys"], 0)
        self.assertNotIn("attention", self.relay(p))
        self.add(url)
        wait_until(lambda: self.relay(p).get("parked_keys") == 1, 30, "the key to be parked")
        self.assertEqual(self.relay(p)["attention"], "1 key is parked, topic shop.orders does not"
                         " exist: skald outbox parked tells why")
        self.assertEqual(self.readyz(p)[0], 200)
        metrics = p.http("/metrics")[1]
        self.assertIn('skald_relay_parked_keys{source="main"} 1', metrics)
        self.assertIn('skald_relay_safe_wal_bytes{source="main"} -1', metrics)
        self.assertIn('skald_relay_spilled_bytes{source="main"} 0', metrics)

    # -- outages ---------------------------------------------------------------------------

    def test_it_starts_before_everything_else(self):
        """Database, schema and Kafka come one after the other; nobody touches the daemon."""
        pg = self.cluster()
        url = pg.create_database("orders")
        pg.stop()
        broker_port = free_port()
        p = self.daemon("skaldd", url, "127.0.0.1:%d" % broker_port).start()
        wait_until(lambda: p.http("/livez")[0] == 200, 20, "liveness")
        wait_until(lambda: "could not reach the database" in (self.trouble(p) or ""), 20,
                   "the database to be missed")
        code, body = self.readyz(p)
        self.assertEqual((code, body["ready"]), (503, False))
        time.sleep(1)  # some more attempts: said once all the same
        self.assertEqual(p.log_text().count("could not reach the database"), 1)
        pg.start()
        wait_until(lambda: "skald db migrate" in (self.trouble(p) or ""), 20,
                   "the schema to be missed")
        run_tool("skald", "--database", url, "db", "migrate")
        self.add(url)
        p.wait_log("the database is there")
        wait_until(lambda: (self.trouble(p) or "") and p.http("/readyz")[0] == 503, 30,
                   "Kafka to be missed")
        self.assertEqual(p.http("/livez")[0], 200)
        self.broker(broker_port)
        p.wait_ready(60)
        wait_until(lambda: self.published(url) == 1, 30, "the message to be published")
        p.wait_log(r"ready in \d+ ms")
        self.assertEqual(p.term(), 0, p.tail())
        self.assertIn("left cleanly", p.log_text())

    def test_the_database_goes_and_comes_back(self):
        pg = self.cluster()
        url = self.migrated(pg, "orders")
        p = self.daemon("skaldd", url, self.broker()).start()
        p.wait_log(r"ready in \d+ ms")  # main knows it, too
        pg.stop("immediate")
        wait_until(lambda: not p.is_ready(), 20, "unreadiness")
        p.wait_log("not ready: relay")  # main looks twice a second: it may miss a short one
        self.assertEqual(p.http("/livez")[0], 200)
        pg.start()
        p.wait_ready()
        p.wait_log("ready again")
        self.add(url)
        wait_until(lambda: self.published(url) == 1, 30, "the message to be published")

    def test_kafka_away_is_seen_without_a_message(self):
        """Nothing is waiting to be sent: not ready all the same, and ready when it comes."""
        pg = self.cluster()
        url = self.migrated(pg, "orders")
        port = free_port()
        p = self.daemon("skaldd", url, "127.0.0.1:%d" % port).start()
        p.wait_log("Kafka does not answer")
        code, body = self.readyz(p)
        self.assertEqual((code, body["kafka"]["ready"]), (503, False))
        self.assertTrue(body["kafka"]["trouble"])
        self.assertEqual(p.http("/livez")[0], 200)
        broker = self.broker(port)
        p.wait_ready()
        self.assertEqual(broker, "127.0.0.1:%d" % port)
        self.procs[-1].kill()
        wait_until(lambda: not self.readyz(p)[1]["kafka"]["ready"], 30,
                   "the loss of Kafka to be seen")  # an orchestrator may see it before
        self.assertEqual(p.log_text().count("Kafka does not answer"), 2)
        self.assertEqual(p.term(), 0, p.tail())

    def test_one_source_down_does_not_stop_the_others(self):
        pg = self.cluster()
        orders, payment = self.migrated(pg, "orders"), self.migrated(pg, "payment")
        p = self.daemon("skaldd", orders, self.broker(), settings={
            "source.payment.url": payment,
            "source.gone.url": "postgresql://x@127.0.0.1:1/x"}).start()
        self.add(orders)
        self.add(payment)
        for url in (orders, payment):
            wait_until(lambda u=url: self.published(u) == 1, 30, "both messages")
        code, body = self.readyz(p)
        self.assertEqual(code, 503)
        self.assertEqual({x["source"]: x["ready"] for x in body["relays"]},
                         {"main": True, "payment": True, "gone": False})
        self.assertIn("could not reach", self.trouble(p, "gone"))
        self.assertEqual(p.metric("skald_relay_published_total", source="payment"), 1)
        self.assertEqual(p.term(), 0, p.tail())

    # -- leaving -----------------------------------------------------------------------------

    def black_hole(self):
        """A server that takes connections and never says a word."""
        s = socket.socket()
        self.addCleanup(s.close)
        s.bind(("127.0.0.1", 0))
        s.listen(64)
        return "postgresql://x@127.0.0.1:%d/x" % s.getsockname()[1]

    def test_sigterm_while_waiting_for_the_database(self):
        p = self.daemon("skaldd", "postgresql://x@127.0.0.1:1/x", NO_KAFKA).start()
        p.wait_log("could not reach the database")
        began = time.monotonic()
        self.assertEqual(p.term(), 0, p.tail())
        self.assertLess(time.monotonic() - began, 10)

    def test_the_time_to_drain_is_bounded(self):
        p = self.daemon("skaldd", self.black_hole(), NO_KAFKA,
                        settings={"daemon.shutdown_timeout": "1s"}).start()
        p.wait_log("serving health")
        began = time.monotonic()
        self.assertEqual(p.term(), 1, p.tail())
        self.assertLess(time.monotonic() - began, 4)
        self.assertIn("could not drain in time", p.log_text())

    def test_a_second_signal_ends_it_at_once(self):
        p = self.daemon("skaldd", self.black_hole(), NO_KAFKA,
                        settings={"daemon.shutdown_timeout": "30s"}).start()
        p.wait_log("serving health")
        p.signal(signal.SIGINT)
        p.wait_log("draining")
        began = time.monotonic()
        p.signal(signal.SIGTERM)
        self.assertEqual(p.wait(10), 1)
        self.assertLess(time.monotonic() - began, 2)

    # -- reloading -----------------------------------------------------------------------------

    def test_sighup(self):
        path = os.path.join(self.dir, "skald.conf")

        def write(text):
            with open(path, "w") as f:
                f.write(text)

        port = free_port()
        base = "[http]\nlisten = 127.0.0.1:%d\n[daemon]\nroles = dev-broker\n" % port
        write(base + "[log]\nformat = text\n")
        log = open(os.path.join(self.dir, "log"), "wb")
        p = subprocess.Popen([bin_path("skaldd"), "--config", path], stderr=log,
                             stdout=subprocess.DEVNULL, env=clean_env())
        self.addCleanup(p.kill)

        def said(text):
            with open(log.name) as f:
                return text in f.read()

        wait_until(lambda: said("ready in"), 20, "readiness")
        write(base + "[relay]\npoll_max = 3s\n[log]\nformat = json\n")
        p.send_signal(signal.SIGHUP)
        wait_until(lambda: said('"key":"relay.poll_max"'), 20, "what waits for a restart")
        write(base + "[relay]\npoll_max = 3s\n[log]\nformat = sonnet\n")
        p.send_signal(signal.SIGHUP)
        wait_until(lambda: said("could not reload"), 20, "the refusal")
        self.assertIsNone(p.poll())
        write(base + "[log]\nformat = json\nlevel = warn\n")
        p.send_signal(signal.SIGHUP)
        p.send_signal(signal.SIGTERM)
        self.assertEqual(p.wait(20), 0)
        log.close()

    # -- systemd -----------------------------------------------------------------------------

    def test_systemd(self):
        pg = self.cluster()
        url = self.migrated(pg, "orders")
        path = os.path.join(self.dir, "notify")
        heard = []
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(path)
            notify.settimeout(20)
            p = self.daemon("skaldd", url, self.broker(),
                            env={"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "400000"}).start()
            while heard.count("WATCHDOG=1") < 3 or "READY=1" not in heard:
                heard.append(notify.recv(200).decode())
            self.assertEqual(heard.count("READY=1"), 1)
            threading.Thread(target=p.term).start()
            while heard[-1] != "STOPPING=1":
                heard.append(notify.recv(200).decode())
            p.wait()
        # not ready: never READY, but alive all the same
        path += "2"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(path)
            notify.settimeout(20)
            self.daemon("down", "postgresql://x@127.0.0.1:1/x", NO_KAFKA,
                        env={"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "400000"}).start()
            self.assertEqual({notify.recv(200) for _ in range(3)}, {b"WATCHDOG=1"})

    # -- HTTP ----------------------------------------------------------------------------------

    def test_http(self):
        pg = self.cluster()
        url = self.migrated(pg, "orders")
        p = self.daemon("skaldd", url, None, roles="relay,dev-broker").start().wait_ready()
        p.signal(signal.SIGHUP)  # must not reach the broker's threads
        p.wait_log("reloaded")
        for path, member in (("/livez", "alive"), ("/readyz", "ready"),
                             ("/startupz", "started")):
            code, text = p.http(path)
            self.assertEqual((code, json.loads(text)[member]), (200, True))
        self.assertEqual(p.metric("skald_ready"), 1)
        self.assertGreater(p.metric("process_resident_memory_bytes"), 1 << 20)
        for line in p.http("/metrics")[1].splitlines():
            self.assertRegex(line, r"^(# (HELP|TYPE) \w+ .+|\w+(\{[^}]*\})? -?[0-9.]+)$")
        base = "http://127.0.0.1:%d" % p.http_port

        def ask(method, path):
            request = urllib.request.Request(base + path, method=method)
            try:
                with urllib.request.urlopen(request, timeout=5) as answer:
                    return answer.status, answer.headers, answer.read()
            except urllib.error.HTTPError as error:
                return error.code, error.headers, error.read()

        code, headers, body = ask("GET", "/v1/nothing")
        self.assertEqual((code, headers["Content-Type"]), (404, "application/problem+json"))
        self.assertEqual(json.loads(body)["status"], 404)
        code, headers, body = ask("POST", "/livez")
        self.assertEqual((code, headers["Allow"]), (405, "GET, HEAD"))
        code, headers, body = ask("HEAD", "/livez")
        self.assertEqual((code, body), (200, b""))
        # the daemon says by itself where its broker is
        self.add(url)
        wait_until(lambda: self.published(url) == 1, 30, "the message to be published")
        self.assertIn("dev broker on 127.0.0.1:", p.out_text())


if __name__ == "__main__":
    unittest.main(verbosity=2, warnings="ignore")
