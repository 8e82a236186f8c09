/*
 * client.c - the parts every librdkafka handle needs: made, ended, its log lines.
 */
#include "broker/own.h"

#include <errno.h>
#include <librdkafka/rdkafka.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/log.h"

const char *
skald_kafka_version(void)
{
	return rd_kafka_version_str();
}

/*
 * librdkafka's own lines, from any of its threads. Its connect failures come
 * several times a second while a broker is down and are told by the loops once
 * (skald_producer_complaint), so only what it calls critical is more than debug.
 * A fatal error comes back as the reason a producer is dead.
 */
static void
log_line(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
	const int critical = 2; /* syslog's LOG_CRIT */
	bool is_news = level <= critical && strcmp(facility, "FATAL") != 0;

	skald_log(is_news ? SKALD_LOG_WARN : SKALD_LOG_DEBUG,
		"librdkafka: %s client=%s facility=%s", text, rk ? rd_kafka_name(rk) : "",
		facility);
}

enum skald_rc
skald__kafka_new(struct rd_kafka_s **out, enum skald__client client,
	struct rd_kafka_conf_s **conf, struct skald_err *err)
{
	char text[200];
	rd_kafka_t *rk;
	int code;

	rd_kafka_conf_set_log_cb(*conf, log_line);
	rk = rd_kafka_new(
		client == SKALD__CLIENT_PRODUCER ? RD_KAFKA_PRODUCER : RD_KAFKA_CONSUMER,
		*conf, text, sizeof(text));
	if (!rk) {
		code = rd_kafka_last_error();
		rd_kafka_conf_destroy(*conf); /* rd_kafka_new takes it on success only */
		*conf = NULL;
		/* Only "no more threads" can pass by itself; the rest is configuration. */
		return skald__kafka_fail_as(err,
			code == RD_KAFKA_RESP_ERR__CRIT_SYS_RESOURCE ? SKALD_RETRY
								     : SKALD_REJECT,
			code, "kafka: %s", text);
	}
	*conf = NULL;
	*out = rk;
	return SKALD_OK;
}

static void *
end_handle(void *arg)
{
	/* A group is left before, with a time limit of its own (consumer.c). */
	rd_kafka_destroy_flags(arg, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
	return NULL;
}

void
skald__kafka_destroy(struct rd_kafka_s *rk, int64_t ms)
{
	struct timespec until;
	pthread_t thread;

	if (!rk)
		return;
	if (pthread_create(&thread, NULL, end_handle, rk)) {
		skald_log(SKALD_LOG_WARN,
			"could not end a kafka client in time: no thread");
		return; /* no thread: leaving it behind is bounded, ending it here is not */
	}
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += (time_t)(ms / 1000);
	until.tv_nsec += (long)(ms % 1000) * 1000000L;
	if (until.tv_nsec >= 1000000000L) {
		until.tv_nsec -= 1000000000L;
		until.tv_sec++;
	}
	if (pthread_timedjoin_np(thread, NULL, &until) == 0)
		return;
	pthread_detach(thread);
	skald_log(SKALD_LOG_WARN,
		"could not end a kafka client in time: its memory stays until the "
		"process ends waited_ms=%lld",
		(long long)ms);
}

int
skald__eventfd_open(void)
{
	return eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
}

void
skald__eventfd_raise(int fd)
{
	const uint64_t one = 1;
	ssize_t n;

	do
		n = write(fd, &one, sizeof(one));
	while (n < 0 && errno == EINTR);
	/* EAGAIN: the counter is full, so it is readable already */
}

void
skald__eventfd_drain(int fd)
{
	uint64_t count;
	ssize_t n;

	do
		n = read(fd, &count, sizeof(count));
	while (n < 0 && errno == EINTR);
}
