/*
 * contract.broker.dev - the dev broker as a process of its own: a fixed port, no
 * Nagle's delay, topics made by asking, and it says what it is.
 *
 * The program starts itself with the argument --serve PORT to be that process.
 */
#include "tests/contract/broker/kit.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/limits.h"
#include "tests/support/check.h"
#include "tests/support/port.h"

extern char **environ;

struct server {
	pid_t pid;
	char address[64];
};

static int
serve(int port)
{
	struct skald_dev_broker *broker = NULL;
	struct skald_err err = SKALD_ERR_INIT;
	char byte;

	if (skald_dev_broker_start(&broker, port, 4, &err)) {
		printf("%s\n", err.text);
		return 1;
	}
	printf("%s\n", skald_dev_broker_address(broker));
	fflush(stdout);
	while (read(STDIN_FILENO, &byte, 1) > 0)
		; /* until the test closes the pipe or dies */
	skald_dev_broker_stop(broker);
	return 0;
}

/* Its stdin is a pipe of ours, so that it cannot outlive us. */
static bool
spawn_server(struct server *s, int port, int *keep)
{
	char number[16];
	char *argv[] = { "contract.broker.dev", "--serve", number, NULL };
	posix_spawn_file_actions_t actions;
	int in[2], out[2];
	ssize_t bytes;
	bool is_up;

	snprintf(number, sizeof(number), "%d", port);
	if (pipe(in) || pipe(out))
		return false;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, in[0], STDIN_FILENO);
	posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
	posix_spawn_file_actions_addclose(&actions, in[1]);
	posix_spawn_file_actions_addclose(&actions, out[0]);
	is_up = posix_spawn(&s->pid, "/proc/self/exe", &actions, NULL, argv, environ) ==
		0;
	posix_spawn_file_actions_destroy(&actions);
	close(in[0]);
	close(out[1]);
	*keep = in[1];
	bytes = is_up ? read(out[0], s->address, sizeof(s->address) - 1) : 0;
	close(out[0]);
	s->address[bytes > 0 ? bytes : 0] = '\0';
	s->address[strcspn(s->address, "\n")] = '\0';
	return bytes > 0;
}

static int
end_server(struct server *s, int keep)
{
	int status = -1;

	close(keep);
	waitpid(s->pid, &status, 0);
	return status;
}

/* --- tests -------------------------------------------------------------------------------- */

static void
send_and_read(const char *address, struct skald_kafka_props *props)
{
	struct skald_topic_conf conf = {
		.partitions = 4, .replication = -1, .create = true
	};
	struct skald_cluster *cluster = NULL;
	struct skald_producer *p = NULL;
	struct kit_reports reports = { 0 };
	struct skald_err err = SKALD_ERR_INIT;
	char id[SKALD_CLUSTER_ID_BYTES] = "", text[64];
	int32_t count = -1;
	unsigned brokers = 0;
	int64_t lo = -1, hi = -1, bytes = -1;
	struct kit_log log;

	CU_ASSERT_EQUAL_FATAL(skald_cluster_open(&cluster, props, &err), SKALD_OK);
	CU_ASSERT_EQUAL(skald_cluster_id(cluster, 5000, id, &err), SKALD_OK);
	CU_ASSERT(skald_cluster_is_dev(id));
	CU_ASSERT_EQUAL(skald_cluster_brokers(cluster, 5000, &brokers, &err), SKALD_OK);
	CU_ASSERT_EQUAL(brokers, 1);
	/* looking does not create */
	for (int i = 0; i < 2; i++) {
		CU_ASSERT_EQUAL(
			skald_topic_partitions(cluster, "orders", 5000, &count, &err),
			SKALD_OK);
		CU_ASSERT_EQUAL(count, 0);
	}
	conf.create = false;
	CU_ASSERT_EQUAL(skald_topic_ensure(cluster, "orders", &conf, 5000, &count, &err),
		SKALD_REJECT);
	CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "[topics] create"));
	conf.create = true;
	CU_ASSERT_EQUAL(skald_topic_ensure(cluster, "orders", &conf, 5000, &count, &err),
		SKALD_OK);
	CU_ASSERT_EQUAL(count, 4);
	CU_ASSERT_EQUAL(
		skald_topic_ensure(cluster, "no/slash", &conf, 5000, &count, &err),
		SKALD_REJECT);
	/* it has no admin calls: our own limit, without asking */
	CU_ASSERT_EQUAL(
		skald_topic_max_bytes(cluster, "orders", 5000, &bytes, &err), SKALD_OK);
	CU_ASSERT_EQUAL(bytes, SKALD_RECORD_BYTES_MAX);
	CU_ASSERT_EQUAL(skald_producer_create(&p, props, "dev", &err), SKALD_OK);
	CU_ASSERT_EQUAL(kit_send(p, "orders", 1, 3), 3);
	CU_ASSERT(kit_await(p, &reports, 3, 10000));
	skald_producer_destroy(p);
	CU_ASSERT_EQUAL(skald_topic_offsets(cluster, "orders", 0, 5000, &lo, &hi, &err),
		SKALD_OK);
	CU_ASSERT(lo == 0 && hi == 3);
	CU_ASSERT(kit_read(address, "orders", 0, &log));
	CHECK_TEXT(kit_payloads(&log, text, sizeof(text)), "1 2 3");
	kit_log_done(&log);
	skald_cluster_close(cluster);
}

static void
serves_other_processes_on_its_port(void)
{
	struct skald_kafka_props *props;
	struct server s;
	int port = free_port(), keep = -1;
	char expected[64];

	CU_ASSERT_FATAL(spawn_server(&s, port, &keep));
	snprintf(expected, sizeof(expected), "127.0.0.1:%d", port);
	CHECK_TEXT(s.address, expected);
	props = kit_props(s.address, NULL);
	CU_ASSERT_PTR_NOT_NULL_FATAL(props);
	send_and_read(s.address, props);
	skald_kafka_props_destroy(props);
	CU_ASSERT_EQUAL(end_server(&s, keep), 0);
}

/*
 * Bursts over all partitions, each awaited: the answers come in more than one
 * packet, and with Nagle's delay every burst takes 40 ms.
 */
static void
answers_without_delay(void)
{
	enum { ROUNDS = 50, BURST = 100, PARTS = 4 };
	static const char *const sets[] = { "kafka.linger.ms=0", NULL };
	struct skald_kafka_props *props;
	struct skald_producer *p = NULL;
	struct kit_reports reports = { 0 };
	struct skald_err err = SKALD_ERR_INIT;
	struct server s;
	int keep = -1;
	int64_t began_ms = 0;
	bool full;

	CU_ASSERT_FATAL(spawn_server(&s, 0, &keep));
	props = kit_props(s.address, sets);
	CU_ASSERT_PTR_NOT_NULL_FATAL(props);
	CU_ASSERT_EQUAL_FATAL(skald_producer_create(&p, props, "dev", &err), SKALD_OK);
	for (unsigned i = 0; i <= ROUNDS; i++) {
		for (unsigned k = 0; k < BURST; k++) {
			struct skald_record r = { .topic = "fast",
				.partition = (int32_t)(k % PARTS),
				.value = SKALD_SLICE_LIT("x") };

			CU_ASSERT_EQUAL(
				skald_producer_send(p, &r, &full, &err), SKALD_OK);
		}
		CU_ASSERT(kit_await(p, &reports, (i + 1) * BURST, 10000));
		if (i == 0)
			began_ms = skald_mono_ms(); /* connected */
	}
	/* with the delay 1400 to 2000, without it 16 on a quiet machine */
	printf("\n    %d bursts in %lld ms ", ROUNDS,
		(long long)(skald_mono_ms() - began_ms));
	CU_ASSERT(skald_mono_ms() - began_ms < 700);
	skald_producer_destroy(p);
	skald_kafka_props_destroy(props);
	CU_ASSERT_EQUAL(end_server(&s, keep), 0);
}

static void
refuses_a_port_in_use(void)
{
	struct skald_dev_broker *first = NULL, *second = NULL;
	struct skald_err err = SKALD_ERR_INIT;
	int port;

	CU_ASSERT_EQUAL_FATAL(skald_dev_broker_start(&first, 0, 8, &err), SKALD_OK);
	port = (int)strtol(strrchr(skald_dev_broker_address(first), ':') + 1, NULL, 10);
	CU_ASSERT(port > 0);
	CU_ASSERT_EQUAL(skald_dev_broker_start(&second, port, 8, &err), SKALD_RETRY);
	CU_ASSERT_PTR_NULL(second);
	CU_ASSERT_PTR_NOT_NULL(strstr(err.text, strerror(EADDRINUSE)));
	CU_ASSERT_EQUAL(skald_dev_broker_start(&second, 70000, 8, &err), SKALD_REJECT);
	CU_ASSERT_EQUAL(skald_dev_broker_start(&second, 0, 0, &err), SKALD_REJECT);
	skald_dev_broker_stop(first);
	skald_dev_broker_stop(NULL);
}

static void
says_what_it_is(void)
{
	const char *text = skald_dev_broker_warning();

	CU_ASSERT_PTR_NOT_NULL(strstr(text, "memory"));
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "5 MiB"));
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "development"));
}

/* Nobody there: told in time, as something that may pass. */
static void
misses_a_broker_in_time(void)
{
	struct skald_topic_conf conf = {
		.partitions = 4, .replication = -1, .create = true
	};
	struct skald_cluster *cluster = NULL;
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_kafka_props *props;
	char address[32], id[SKALD_CLUSTER_ID_BYTES];
	int64_t began_ms = skald_mono_ms();
	int32_t count;

	snprintf(address, sizeof(address), "127.0.0.1:%d", free_port());
	props = kit_props(address, NULL);
	CU_ASSERT_PTR_NOT_NULL_FATAL(props);
	CU_ASSERT_EQUAL_FATAL(skald_cluster_open(&cluster, props, &err), SKALD_OK);
	CU_ASSERT_EQUAL(skald_cluster_id(cluster, 300, id, &err), SKALD_RETRY);
	CHECK_TEXT(err.origin, "kafka");
	CU_ASSERT_EQUAL(skald_topic_ensure(cluster, "orders", &conf, 300, &count, &err),
		SKALD_RETRY);
	skald_cluster_close(cluster);
	skald_kafka_props_destroy(props);
	CU_ASSERT(skald_mono_ms() - began_ms < 3000);
}

int
main(int argc, char **argv)
{
	static const struct check_case cases[] = {
		CHECK(serves_other_processes_on_its_port),
		CHECK(answers_without_delay),
		CHECK(refuses_a_port_in_use),
		CHECK(says_what_it_is),
		CHECK(misses_a_broker_in_time),
	};

	if (argc == 3 && strcmp(argv[1], "--serve") == 0)
		return serve((int)strtol(argv[2], NULL, 10));
	signal(SIGPIPE, SIG_IGN);
	return check_main("contract.broker.dev", cases, CHECK_COUNT(cases));
}
