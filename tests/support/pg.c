#include "tests/support/pg.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/port.h"

static struct {
	bool is_made;
	char dir[64];
	char bin[256];
	char as[64]; /* "runuser -u postgres -- " when root, else "" */
	int port;
	pid_t owner; /* forked children must not stop it */
} cluster;

static void die(const char *fmt, ...) SKALD_PRINTF(1, 2) __attribute__((noreturn));

static void
die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)fprintf(stderr, "\npg: ");
	(void)vfprintf(stderr, fmt, ap);
	(void)fputc('\n', stderr);
	va_end(ap);
	exit(2);
}

static int run(const char *fmt, ...) SKALD_PRINTF(1, 2);

/* Run a command of the cluster; its output goes to DIR/out. Returns its exit status. */
static int
run(const char *fmt, ...)
{
	char command[1024], line[2048];
	va_list ap;
	int status;

	va_start(ap, fmt);
	(void)vsnprintf(command, sizeof(command), fmt, ap);
	va_end(ap);
	/* the server must not keep our stdout open: whoever reads it would wait for its end */
	(void)snprintf(line, sizeof(line), "cd / && %s%s/%s >>%s/out 2>&1 </dev/null",
		cluster.as, cluster.bin, command, cluster.dir);
	status = system(line);
	return status == -1 || !WIFEXITED(status) ? 127 : WEXITSTATUS(status);
}

static void
show_log(const char *name)
{
	char path[128], line[512];
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/%s", cluster.dir, name);
	f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f))
		(void)fprintf(stderr, "  %s", line);
	if (f)
		(void)fclose(f);
}

/* $SKALD_PG_BIN, else the newest /usr/lib/postgresql/N/bin. */
static void
find_bin(void)
{
	const char *given = getenv("SKALD_PG_BIN");
	glob_t found = { 0 };
	int best = 0;

	if (given) {
		(void)snprintf(cluster.bin, sizeof(cluster.bin), "%s", given);
		return;
	}
	(void)glob("/usr/lib/postgresql/*/bin/initdb", 0, NULL, &found);
	for (size_t i = 0; i < found.gl_pathc; i++) {
		int version = (int)strtol(found.gl_pathv[i] + 20, NULL, 10);

		if (version > best) {
			best = version;
			(void)snprintf(cluster.bin, sizeof(cluster.bin),
				"/usr/lib/postgresql/%d/bin", version);
		}
	}
	globfree(&found);
	if (!best)
		die("no PostgreSQL under /usr/lib/postgresql; set SKALD_PG_BIN");
}

static void
destroy(void)
{
	char line[256];

	(void)run("pg_ctl -D %s/data -m immediate -w stop", cluster.dir);
	(void)snprintf(line, sizeof(line), "rm -rf '%s'", cluster.dir);
	(void)!system(line);
}

static void
at_exit(void)
{
	if (cluster.is_made && getpid() == cluster.owner) {
		cluster.is_made = false;
		destroy();
	}
}

/*
 * A test that is killed or aborts runs no atexit: a child holds the read end of
 * a pipe whose other end dies with the test, and cleans up then.
 */
static void
start_watchdog(void)
{
	int fds[2];
	pid_t pid;
	char byte;

	if (pipe2(fds, O_CLOEXEC))
		die("no pipe: %s", strerror(errno));
	pid = fork();
	if (pid < 0)
		die("no fork: %s", strerror(errno));
	if (pid == 0) {
		(void)setsid();
		(void)close(fds[1]);
		/* whoever waits for the end of our output must not wait for this child */
		(void)!freopen("/dev/null", "w", stdout);
		(void)!freopen("/dev/null", "w", stderr);
		while (read(fds[0], &byte, 1) < 0 && errno == EINTR)
			;
		if (access(cluster.dir, F_OK) == 0)
			destroy();
		_exit(0);
	}
	(void)close(fds[0]);
}

static void
write_settings(void)
{
	char path[128];
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/data/postgresql.auto.conf", cluster.dir);
	f = fopen(path, "w");
	if (!f)
		die("could not write %s: %s", path, strerror(errno));
	(void)fprintf(f,
		"listen_addresses = '127.0.0.1'\nport = %d\n"
		"unix_socket_directories = '%s'\nwal_level = logical\n"
		"shared_buffers = 64MB\nmax_connections = 120\nmax_wal_size = 256MB\n"
		"fsync = on\nlog_min_messages = warning\n",
		cluster.port, cluster.dir);
	if (fclose(f))
		die("could not write %s: %s", path, strerror(errno));
}

/* initdb, or a copy of what it made for the suite. */
static void
make_data(void)
{
	const char *made = getenv("SKALD_TEST_PG_TEMPLATE");
	char line[256];

	if (made) {
		(void)snprintf(line, sizeof(line), "%scp -a '%s' '%s/data'", cluster.as,
			made, cluster.dir);
		if (system(line) == 0)
			return;
	}
	if (run("initdb -D %s/data -A trust -U postgres --no-locale -E UTF8 -N",
		    cluster.dir)) {
		show_log("out");
		die("initdb failed");
	}
}

static void
make(void)
{
	const char *base;

	if (cluster.is_made)
		return;
	find_bin();
	base = getenv("SKALD_TEST_PG_DIR"); /* the suite's, in memory */
	(void)snprintf(cluster.dir, sizeof(cluster.dir), "%s/skald-pg-XXXXXX",
		base ? base : "/tmp");
	if (!mkdtemp(cluster.dir))
		die("no directory: %s", strerror(errno));
	cluster.owner = getpid();
	if (geteuid() == 0) { /* initdb refuses root */
		struct passwd *pw = getpwnam("postgres");

		if (!pw || chown(cluster.dir, pw->pw_uid, pw->pw_gid))
			die("no user postgres to run as");
		(void)snprintf(cluster.as, sizeof(cluster.as), "runuser -u postgres -- ");
	}
	if (chmod(cluster.dir, 0755))
		die("chmod: %s", strerror(errno));
	cluster.is_made = true;
	(void)atexit(at_exit);
	start_watchdog();
	make_data();
	cluster.port = free_port();
	write_settings();
	pg_start();
}

void
pg_start(void)
{
	make();
	if (run("pg_ctl -D %s/data -l %s/log -w -t 60 start", cluster.dir, cluster.dir)) {
		show_log("out");
		show_log("log");
		die("the server did not start");
	}
}

void
pg_stop(const char *mode)
{
	make();
	if (run("pg_ctl -D %s/data -m %s -w stop", cluster.dir, mode))
		die("the server did not stop");
}

void
pg_kill(int backend_pid)
{
	char path[128];
	long pid = backend_pid;
	FILE *f;

	make();
	if (!pid) {
		(void)snprintf(path, sizeof(path), "%s/data/postmaster.pid", cluster.dir);
		f = fopen(path, "r");
		if (!f || fscanf(f, "%ld", &pid) != 1)
			die("no postmaster to kill");
		(void)fclose(f);
	}
	if (kill((pid_t)pid, SIGKILL))
		die("could not kill %ld: %s", pid, strerror(errno));
}

int
pg_port(void)
{
	make();
	return cluster.port;
}

/* --- databases and sessions ------------------------------------------------------------------ */

void
pg_url_as(const char *database, const char *role, char url[PG_URL_BYTES])
{
	make();
	(void)snprintf(url, PG_URL_BYTES, "host=%s port=%d dbname=%s user=%s",
		cluster.dir, cluster.port, database, role);
}

void
pg_url(const char *database, char url[PG_URL_BYTES])
{
	pg_url_as(database, "postgres", url);
}

struct skald_sql *
pg_session(const char *database, const char *role, enum skald_sql_kind kind)
{
	struct skald_sql_conf conf = {
		.application = "test", .kind = kind, .connect_timeout_ms = 10000
	};
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_sql *sql = NULL;
	char url[PG_URL_BYTES];

	pg_url_as(database, role, url);
	conf.url = url;
	if (skald_sql_open(&sql, &conf, &err))
		die("no session on %s: %s", database, err.text);
	return sql;
}

void
pg_create(const char *database, bool migrated)
{
	struct skald_sql *sql = pg_session("postgres", "postgres", SKALD_SQL_TOOL);
	struct skald_err err = SKALD_ERR_INIT;
	char script[256];

	(void)snprintf(script, sizeof(script),
		"SELECT count(*) FROM pg_database WHERE datname = '%s'", database);
	if (!pg_int(sql, script)) {
		(void)snprintf(
			script, sizeof(script), "CREATE DATABASE \"%s\"", database);
		pg_exec(sql, script);
	}
	skald_sql_close(sql);
	if (!migrated)
		return;
	sql = pg_session(database, "postgres", SKALD_SQL_TOOL);
	if (skald_migrate(sql, false, NULL, &err))
		die("could not migrate %s: %s %s", database, err.code, err.text);
	skald_sql_close(sql);
}

struct skald_sql *
pg_open(const char *database, enum skald_sql_kind kind)
{
	pg_create(database, true);
	return pg_session(database, "postgres", kind);
}

void
pg_exec(struct skald_sql *sql, const char *script)
{
	struct skald_err err = SKALD_ERR_INIT;

	if (skald_sql_exec(sql, script, &err))
		die("%s: %s\n  in %s", err.code, err.text, script);
}

static struct skald_rows *
ask(struct skald_sql *sql, const char *query)
{
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_rows *rows = NULL;

	if (skald_conn_query(skald_sql_conn(sql), query, NULL, 0, &rows, &err))
		die("%s: %s\n  in %s", err.code, err.text, query);
	return rows;
}

int64_t
pg_int(struct skald_sql *sql, const char *query)
{
	struct skald_rows *rows = ask(sql, query);
	int64_t value = skald_rows_count(rows) ? skald_rows_int(rows, 0, 0, -1) : -1;

	skald_rows_free(rows);
	return value;
}

const char *
pg_text(struct skald_sql *sql, const char *query)
{
	static char text[4096];
	struct skald_rows *rows = ask(sql, query);

	text[0] = '\0';
	if (skald_rows_count(rows))
		(void)skald_slice_copy(skald_rows_get(rows, 0, 0), text, sizeof(text));
	skald_rows_free(rows);
	return text;
}
