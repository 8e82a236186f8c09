# shellcheck shell=bash
# What a machine needs, in one place: sourced by ./dev.
#
# Each line: Debian package, and a test that is quick and true when it is there
# (by any way of installing it, so other systems work without apt-get).

packages_build() {
	cat <<'LIST'
gcc                 command -v gcc || command -v cc
libc6-dev           echo '#include <stdio.h>' | cc -E -
cmake               command -v cmake
ninja-build         command -v ninja
pkg-config          command -v pkg-config
librdkafka-dev      pkg-config --exists 'rdkafka >= 2.0.2'
libpq-dev           pkg-config --exists 'libpq >= 14'
libmicrohttpd-dev   pkg-config --exists 'libmicrohttpd >= 0.9.75'
libinih-dev         pkg-config --exists inih
LIST
}

packages_run() { # a private PostgreSQL, kcat, the Python that drives
	cat <<'LIST'
postgresql          ls /usr/lib/postgresql/*/bin/initdb || command -v initdb
postgresql-client   command -v psql
kcat                command -v kcat
python3             command -v python3
LIST
}

packages_test() {
	cat <<'LIST'
libcunit1-dev       pkg-config --exists cunit
python3-venv        python3 -c 'import venv, ensurepip'
LIST
}

packages_kafka() { # Apache Kafka runs on Java and comes by Maven
	cat <<'LIST'
default-jre-headless command -v java
maven                command -v mvn
LIST
}

packages_check() {
	cat <<'LIST'
clang               command -v clang
clang-format        command -v clang-format
LIST
}

# packages_missing GROUP...: names of what is not there
packages_missing() {
	local group package probe
	for group in "$@"; do
		while read -r package probe; do
			bash -c "$probe" >/dev/null 2>&1 </dev/null || echo "$package"
		done < <("packages_$group")
	done
}

# packages_install NAME...: by apt-get, as root or with sudo
packages_install() {
	local as=()
	if ! command -v apt-get >/dev/null; then
		echo "no apt-get here: install these by hand (Debian's names): $*" >&2
		return 1
	fi
	if [ "$(id -u)" -ne 0 ]; then
		if ! command -v sudo >/dev/null; then
			echo "not root and no sudo: run as root: apt-get install $*" >&2
			return 1
		fi
		as=(sudo)
	fi
	# The package postgresql would start a server of its own, which nobody here uses.
	if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
		"${as[@]}" mkdir -p /etc/postgresql-common
		echo "create_main_cluster = false" |
			"${as[@]}" tee /etc/postgresql-common/createcluster.conf >/dev/null
	fi
	"${as[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q update &&
		"${as[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y \
			-o Dpkg::Options::=--force-confold \
			--no-install-recommends install "$@"
}
