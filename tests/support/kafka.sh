#!/usr/bin/env bash
# Apache Kafka for tests: fetched once, started in seconds, thrown away.
#
#   kafka.sh fetch DIR                 the jars into DIR, by Maven; nothing when they are there
#   kafka.sh start DIR WORKDIR [--brokers N] [--while PID] [--acls yes]
#                                      prints the bootstrap servers on stdout when all answer
#   kafka.sh stop WORKDIR              all brokers; the directory stays
#   kafka.sh kill WORKDIR N            SIGKILL broker N (1, 2, ...)
#   kafka.sh restart WORKDIR N         start broker N again and wait until it answers
#   kafka.sh version DIR
#
# Each broker is its own controller too (KRaft). --while PID: all end when that process
# does, however it ends; without it they stay until stop. WORKDIR/N holds a broker's
# settings, log, data and pid. Needs a Java runtime, and Maven for fetch.
set -u

KAFKA=4.1.1
LOG4J=2.20.0
START_SECONDS=60
here=$(cd "$(dirname "$0")" && pwd)

say() { printf 'kafka: %s\n' "$*" >&2; }
die() {
	say "$*"
	exit 1
}
usage() {
	sed -n '4,10s/^# *//p' "$0" >&2
	exit 2
}

# --- jars ---------------------------------------------------------------------------------

are_jars_right() { # DIR: every jar of the list, byte by byte
	[ -d "$1" ] && (cd "$1" && sha256sum --check --quiet --strict "$here/kafka.sha256") \
		>/dev/null 2>&1
}

pom() {
	cat <<POM
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>skald</groupId><artifactId>test-kafka</artifactId><version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId>
      <version>$KAFKA</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId>
      <version>$LOG4J</version>
    </dependency>
  </dependencies>
</project>
POM
}

fetch() { # DIR
	local dir=$1 work began=$SECONDS pid
	are_jars_right "$dir" && return 0
	command -v mvn >/dev/null || die "Maven is missing (Debian: maven)"
	mkdir -p "$dir" || die "cannot write $dir"
	exec 9>"$dir.lock"
	flock 9 # two runs at once: the second finds everything done
	are_jars_right "$dir" && return 0
	work=$(mktemp -d "$dir.fetch.XXXXXX") || die "cannot write beside $dir"
	# shellcheck disable=SC2064
	trap "rm -rf '$work'" EXIT
	pom >"$work/pom.xml"
	say "fetching Apache Kafka $KAFKA by Maven (43 MB) ..."
	(cd "$work" && exec mvn -q -B -C dependency:copy-dependencies -DincludeScope=runtime \
		-DoutputDirectory="$work/jars") >"$work/log" 2>&1 9>&- </dev/null &
	pid=$!
	while kill -0 "$pid" 2>/dev/null; do
		sleep 1
		[ $(((SECONDS - began) % 10)) -ne 0 ] ||
			say "fetching, $((SECONDS - began)) s, $(find "$work/jars" -name '*.jar' 2>/dev/null | wc -l) jars"
	done
	if ! wait "$pid" || ! are_jars_right "$work/jars"; then
		tail -n 20 "$work/log" >&2
		(cd "$work/jars" 2>/dev/null && sha256sum --check --quiet "$here/kafka.sha256" 2>&1 |
			head -n 5) >&2
		die "could not fetch Apache Kafka $KAFKA"
	fi
	rm -rf "$dir" && mv "$work/jars" "$dir" || die "cannot write $dir"
	say "fetched Apache Kafka $KAFKA in $((SECONDS - began)) s"
}

version() { # DIR
	local jar
	for jar in "$1"/kafka_2.13-*.jar; do
		[ -f "$jar" ] || die "no Apache Kafka in $1; kafka.sh fetch $1"
		jar=${jar##*/kafka_2.13-}
		echo "${jar%.jar}"
		return 0
	done
}

# --- brokers ------------------------------------------------------------------------------

# A port nobody answers on, below the range that outgoing connections take theirs from.
free_port() {
	local port
	while :; do
		port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
		(exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
	done
	echo "$port"
}

settings() { # NODE BROKERS VOTERS PORT CONTROLLER_PORT DATA
	local copies=$(($2 >= 3 ? 3 : 1))
	cat <<CONF
process.roles=broker,controller
node.id=$1
controller.quorum.voters=$3
listeners=PLAINTEXT://127.0.0.1:$4,CONTROLLER://127.0.0.1:$5
advertised.listeners=PLAINTEXT://127.0.0.1:$4
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs=$6
default.replication.factor=$copies
min.insync.replicas=$((copies >= 3 ? 2 : 1))
offsets.topic.replication.factor=$copies
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=$copies
transaction.state.log.min.isr=$((copies >= 3 ? 2 : 1))
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=$copies
share.coordinator.state.topic.min.isr=$((copies >= 3 ? 2 : 1))
# The first member need not wait for others; tests may ask for short sessions.
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
# A killed broker is missed after 2 s instead of 9.
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=300
controller.quorum.election.timeout.ms=500
controller.quorum.fetch.timeout.ms=1000
CONF
	# Everybody may do everything but what an ACL takes away.
	[ -z "${acls:-}" ] || cat <<'CONF'
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=true
CONF
}

log_settings() {
	cat <<'CONF'
status = error
appender.c.type = Console
appender.c.name = C
appender.c.layout.type = PatternLayout
appender.c.layout.pattern = %d{ISO8601} %p %m (%c)%n
rootLogger.level = warn
rootLogger.appenderRef.c.ref = C
logger.started.name = kafka.server.KafkaRaftServer
logger.started.level = info
CONF
}

java_run() { # WORKDIR HEAP CLASS ARG...: in the foreground, out of reach of a Ctrl-C
	local work=$1 heap=$2
	shift 2
	exec setsid java -Xms128m "-Xmx$heap" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \
		-Djava.net.preferIPv4Stack=true \
		"-Dlog4j2.configurationFile=$work/log4j2.properties" \
		-cp "$(cat "$work/jars")/*" "$@"
}

node_pid() { # NODE_DIR: its pid if that is really it (pids are used again)
	local pid
	pid=$(cat "$1/pid" 2>/dev/null) || return 1
	{ tr '\0' ' ' <"/proc/$pid/cmdline"; } 2>/dev/null |
		grep -qF "$1/server.properties" && echo "$pid"
}

launch() { # WORKDIR NODE
	local work=$1 node=$1/$2
	[ -f "$node/log" ] && mv "$node/log" "$node/log.old"
	# No descriptor of the caller goes along: it may wait for the end of our stdout.
	(
		for fd in /proc/self/fd/*; do
			fd=${fd##*/}
			[ "$fd" -le 2 ] || eval "exec $fd>&-"
		done 2>/dev/null
		java_run "$work" "$(cat "$work/heap")" kafka.Kafka "$node/server.properties"
	) </dev/null >"$node/log" 2>&1 &
	echo $! >"$node/pid"
	disown
}

await() { # WORKDIR NODE: until it says that it serves
	local node=$1/$2 until=$((SECONDS + START_SECONDS))
	while ! grep -q 'Kafka Server started' "$node/log" 2>/dev/null; do
		if ! node_pid "$node" >/dev/null && ! kill -0 "$(cat "$node/pid")" 2>/dev/null; then
			say "broker $2 ended"
			return 1
		fi
		if [ "$SECONDS" -ge "$until" ]; then
			say "broker $2 does not answer after $START_SECONDS s"
			return 1
		fi
		sleep 0.1
	done
}

show_log() { # WORKDIR NODE
	say "the end of $1/$2/log:"
	tail -n 25 "$1/$2/log" >&2
}

prepare() { # WORKDIR BROKERS CLUSTER: fresh settings on fresh ports, formatted
	local work=$1 brokers=$2 cluster=$3 voters='' n pids='' bad=0
	local -a port control
	for ((n = 1; n <= brokers; n++)); do
		port[n]=$(free_port)
		control[n]=$(free_port)
		voters+="${voters:+,}$n@127.0.0.1:${control[n]}"
	done
	: >"$work/bootstrap"
	for ((n = 1; n <= brokers; n++)); do
		rm -rf "${work:?}/$n"
		mkdir -p "$work/$n"
		settings "$n" "$brokers" "$voters" "${port[n]}" "${control[n]}" "$work/$n/data" \
			>"$work/$n/server.properties"
		printf '%s127.0.0.1:%s' "$([ "$n" = 1 ] || echo ,)" "${port[n]}" >>"$work/bootstrap"
		(java_run "$work" 256m kafka.tools.StorageTool format -t "$cluster" \
			-c "$work/$n/server.properties") </dev/null >"$work/$n/log" 2>&1 &
		pids+=" $!"
	done
	for n in $pids; do
		wait "$n" || bad=1
	done
	[ "$bad" = 0 ] || { show_log "$work" 1; return 1; }
}

start() { # DIR WORKDIR [--brokers N] [--while PID] [--acls yes]
	[ $# -ge 2 ] || usage
	local jars=$1 work=$2 brokers=1 keeper='' acls='' try n cluster
	shift 2
	while [ $# -ge 2 ]; do
		case $1 in
		--brokers) brokers=$2 ;;
		--while) keeper=$2 ;;
		--acls) acls=$2 ;;
		*) usage ;;
		esac
		shift 2
	done
	[ $# -eq 0 ] || usage
	case $brokers in [1-9]) ;; *) die "--brokers: 1 to 9" ;; esac
	command -v java >/dev/null || die "a Java runtime is missing (Debian: default-jre-headless)"
	are_jars_right "$jars" || die "the jars in $jars are not complete; kafka.sh fetch $jars"
	mkdir -p "$work" || die "cannot write $work"
	work=$(cd "$work" && pwd)
	for n in "$work"/[1-9]; do
		node_pid "$n" >/dev/null && die "brokers run in $work already"
	done
	(cd "$jars" && pwd) >"$work/jars"
	if [ "$brokers" = 1 ]; then echo 512m; else echo 384m; fi >"$work/heap"
	log_settings >"$work/log4j2.properties"
	cluster=S$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | cut -c 1-21)
	trap 'stop "$work"' EXIT # until all is well
	trap 'exit 1' INT TERM HUP
	for try in 1 2 3; do # a port may be gone when the broker asks for it
		[ "$try" = 1 ] || say "once more, on other ports"
		prepare "$work" "$brokers" "$cluster" || continue
		for ((n = 1; n <= brokers; n++)); do launch "$work" "$n"; done
		for ((n = 1; n <= brokers; n++)); do
			await "$work" "$n" || break
		done
		if [ "$n" -gt "$brokers" ]; then
			trap - EXIT INT TERM HUP
			[ -z "$keeper" ] || watch "$work" "$keeper"
			cat "$work/bootstrap"
			echo
			return 0
		fi
		show_log "$work" "$n"
		stop "$work"
	done
	die "Apache Kafka does not start"
}

watch() { # WORKDIR PID
	setsid bash -c 'while kill -0 "$2" 2>/dev/null && [ -d "$3" ]; do sleep 1; done
		exec "$1" stop "$3"' watch "$here/kafka.sh" "$2" "$1" </dev/null >/dev/null 2>&1 &
	disown
}

stop() { # WORKDIR
	local node pid pids=() until=$((SECONDS + 4))
	for node in "$1"/[1-9]; do
		pid=$(node_pid "$node") && pids+=("$pid")
	done
	[ ${#pids[@]} -gt 0 ] || return 0
	kill -TERM "${pids[@]}" 2>/dev/null
	# The last of several has no quorum to say goodbye to: then by force.
	while kill -0 "${pids[@]}" 2>/dev/null && [ "$SECONDS" -lt "$until" ]; do sleep 0.1; done
	kill -KILL "${pids[@]}" 2>/dev/null
	return 0
}

node_of() { # WORKDIR N
	[ $# -eq 2 ] || usage
	[ -f "$1/$2/server.properties" ] || die "no broker $2 in $1"
	(cd "$1" && pwd)
}

case ${1-} in
fetch)
	[ $# -eq 2 ] || usage
	case $2 in /*) fetch "${2%/}" ;; *) fetch "$PWD/${2%/}" ;; esac
	;;
start)
	shift
	start "$@"
	;;
stop)
	[ $# -eq 2 ] || usage
	[ -d "$2" ] || exit 0
	stop "$(cd "$2" && pwd)"
	;;
kill)
	shift
	work=$(node_of "$@") || exit
	pid=$(node_pid "$work/$2") || die "broker $2 does not run"
	kill -KILL "$pid"
	while node_pid "$work/$2" >/dev/null; do sleep 0.02; done # a zombie is gone
	;;
restart)
	shift
	work=$(node_of "$@") || exit
	node_pid "$work/$2" >/dev/null && die "broker $2 runs"
	launch "$work" "$2"
	await "$work" "$2" || {
		show_log "$work" "$2"
		exit 1
	}
	;;
version)
	[ $# -eq 2 ] || usage
	version "$2"
	;;
*) usage ;;
esac
