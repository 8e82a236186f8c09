/* config_table.c - every option: parsing, --help, --print-config and the sample read it. */
#include "base/config_own.h"

enum { SECOND = 1000, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE, DAY = 24 * HOUR };

#define CENTURY  ((int64_t)36500 * DAY)
#define PEBIBYTE ((int64_t)1 << 50)

const struct skald__section skald__sections[] = {
	{ "daemon", "which work this daemon does" },
	{ "database", "the installation's own PostgreSQL" },
	{ "kafka", "any librdkafka property, passed through verbatim" },
	{ "relay", "from the outbox table to the topics" },
	{ SKALD__SOURCE_PREFIX,
		"one more database whose outbox is relayed; besides url any "
		"key of [relay] may stand here" },
	{ "saga", "what drives sagas" },
	{ "topics", "topics that are missing" },
	{ "http", "health, metrics, API" },
	{ "retention", "how long things are kept; 0: for ever" },
	{ "log", "one line per event, on standard error" },
	{ "dev_broker", "the embedded broker for development: in memory only" },
	{ "service", "a program that embeds the library" },
};
const unsigned skald__section_count =
	sizeof(skald__sections) / sizeof(skald__sections[0]);

/* clang-format off */
const struct skald_option skald__options[] = {
	{ "daemon", "installation", SKALD_OPTION_TEXT, NULL, 0, 0, NULL,
		"names this installation on a shared Kafka; default: the database's name" },
	{ "daemon", "roles", SKALD_OPTION_LIST, "relay,orchestrator", 0, 0,
		"relay|orchestrator|dev-broker",
		"what runs here" },
	{ "daemon", "shutdown_timeout", SKALD_OPTION_DURATION, "30s", SECOND, HOUR, NULL,
		"longest drain after SIGTERM" },

	{ "database", "url", SKALD_OPTION_TEXT, NULL, 0, 0, NULL,
		"libpq conninfo or URI; PG* variables and ~/.pgpass work; direct, not through "
		"PgBouncer" },
	{ "database", "connect_timeout", SKALD_OPTION_DURATION, "5s", 100, 5 * MINUTE, NULL,
		"longest wait for a connection" },

	{ "kafka", "bootstrap.servers", SKALD_OPTION_TEXT, NULL, 0, 0, NULL,
		"host:port of some brokers, comma separated" },

	{ "relay", "mode", SKALD_OPTION_CHOICE, "poll", 0, 0, "poll|wal",
		"how the outbox is read: looked at in turns, or streamed from WAL by a slot" },
	{ "relay", "poll_min", SKALD_OPTION_DURATION, "2ms", 1, 10 * SECOND, NULL,
		"pause between two looks while there is work" },
	{ "relay", "poll_max", SKALD_OPTION_DURATION, "100ms", 1, MINUTE, NULL,
		"pause between two looks when idle" },
	{ "relay", "slot_limit", SKALD_OPTION_BYTES, "0", 0, PEBIBYTE, NULL,
		"WAL at which the slot is dropped; 0: never" },
	{ "relay", "gate", SKALD_OPTION_LIST, NULL, 0, 0, NULL,
		"standbys (application_name) that must have what is published" },

	{ SKALD__SOURCE_PREFIX, "url", SKALD_OPTION_TEXT, NULL, 0, 0, NULL,
		"libpq conninfo or URI of that database" },

	{ "saga", "reply_topic", SKALD_OPTION_TEXT, NULL, 0, 0, NULL,
		"where participants answer; default: skald.replies.<installation>" },
	{ "saga", "definitions", SKALD_OPTION_TEXT, NULL, 0, 0, NULL,
		"directory whose *.json are deployed at start" },
	{ "saga", "batch", SKALD_OPTION_INT, "500", 1, 500, NULL,
		"replies, and sagas that are due, per transaction at most" },

	{ "topics", "create", SKALD_OPTION_BOOL, "true", 0, 0, NULL,
		"create topics that are missing; false: name them in doctor and /readyz" },
	{ "topics", "partitions", SKALD_OPTION_INT, "8", 1, 10000, NULL,
		"of a topic that is created" },
	{ "topics", "replication", SKALD_OPTION_INT, "-1", -1, 32, NULL,
		"of a topic that is created; -1: the broker's default" },

	{ "http", "listen", SKALD_OPTION_TEXT, "127.0.0.1:8085", 0, 0, NULL,
		"address:port; empty: no HTTP" },
	{ "http", "token_file", SKALD_OPTION_TEXT, NULL, 0, 0, NULL,
		"file with lines \"name token\"; without it loopback only" },

	{ "retention", "outbox", SKALD_OPTION_DURATION, "1d", 0, CENTURY, NULL,
		"published rows of the outbox" },
	{ "retention", "sagas", SKALD_OPTION_DURATION, "90d", 0, CENTURY, NULL,
		"finished sagas; their names, keys and ids stay for ever" },
	{ "retention", "barrier", SKALD_OPTION_DURATION, "400d", 0, CENTURY, NULL,
		"what participants remember of commands, at least" },
	{ "retention", "consumed", SKALD_OPTION_DURATION, "14d", 0, CENTURY, NULL,
		"ids remembered by consume_once" },
	{ "retention", "dead_letters", SKALD_OPTION_DURATION, "90d", 0, CENTURY, NULL,
		"resolved and archived dead letters; an open one is never dropped" },
	{ "retention", "audit", SKALD_OPTION_DURATION, "400d", 0, CENTURY, NULL,
		"who did what" },

	{ "log", "format", SKALD_OPTION_CHOICE, "auto", 0, 0, "auto|text|json",
		"auto: text on a terminal, json otherwise" },
	{ "log", "level", SKALD_OPTION_CHOICE, "info", 0, 0, "error|warn|info|debug",
		"the least important lines that are written" },

	{ "dev_broker", "listen", SKALD_OPTION_TEXT, "127.0.0.1:0", 0, 0, NULL,
		"loopback address:port; port 0: any free one, printed at start" },
	{ "dev_broker", "partitions", SKALD_OPTION_INT, "8", 1, 1000, NULL,
		"of topics that come to be by use" },

	{ "service", "group", SKALD_OPTION_TEXT, NULL, 0, 0, NULL,
		"Kafka consumer group; default: the service's name" },
	{ "service", "topics", SKALD_OPTION_LIST, NULL, 0, 0, NULL,
		"topics to consume; default: what the program asks for" },
	{ "service", "batch", SKALD_OPTION_INT, "500", 1, 10000, NULL,
		"messages per transaction at most" },
	{ "service", "lanes", SKALD_OPTION_INT, "4", 1, 64, NULL,
		"per partition; stored at first use" },
	{ "service", "sql_context", SKALD_OPTION_BOOL, "true", 0, 0, NULL,
		"context for handlers that call skald.outbox_add in SQL" },
	{ "service", "attempts", SKALD_OPTION_INT, "5", 1, 100, NULL,
		"of a message that fails by its own fault" },
	{ "service", "session_timeout", SKALD_OPTION_DURATION, "10s", SECOND, 30 * MINUTE, NULL,
		"after which Kafka gives a silent member's partitions away" },
};
/* clang-format on */
const unsigned skald__option_count = sizeof(skald__options) / sizeof(skald__options[0]);

bool
skald__is_source(const char *section)
{
	return strncmp(section, SKALD__SOURCE_PREFIX, strlen(SKALD__SOURCE_PREFIX)) == 0;
}

static const struct skald_option *
find_row(const char *section, const char *key)
{
	for (unsigned i = 0; i < skald__option_count; i++)
		if (strcmp(skald__options[i].section, section) == 0 &&
			strcmp(skald__options[i].key, key) == 0)
			return &skald__options[i];
	return NULL;
}

const struct skald_option *
skald__option_find(const char *section, const char *key)
{
	static const struct skald_option verbatim = { "kafka", "", SKALD_OPTION_TEXT,
		NULL, 0, 0, NULL, "" };
	const struct skald_option *found;

	if (skald__is_source(section)) {
		found = find_row(SKALD__SOURCE_PREFIX, key);
		return found ? found : find_row("relay", key);
	}
	found = find_row(section, key);
	return !found && strcmp(section, "kafka") == 0 ? &verbatim : found;
}
