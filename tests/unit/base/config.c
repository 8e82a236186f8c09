/* Configuration: precedence, provenance, masks, and errors that name file, line, key, rule. */
#include "base/config.h"
#include "base/config_own.h"

#include <stdlib.h>
#include <unistd.h>

#include "tests/support/check.h"

static char folder[] = "/tmp/skald-config-XXXXXX";

/* file NULL: none. Writes skald.conf into the current directory (ours) and loads it. */
static enum skald_rc
load(struct skald_config **config, const char *file, const char *const *sets,
	unsigned set_count, struct skald_err *err)
{
	struct skald_config_args args = { .sets = sets, .set_count = set_count };
	FILE *out;

	*config = NULL;
	remove("skald.conf");
	if (file) {
		out = fopen("skald.conf", "w");
		fputs(file, out);
		fclose(out);
	}
	return skald_config_load(config, &args, err);
}

static struct skald_config *
loaded(const char *file, const char *set)
{
	struct skald_config *config;
	struct skald_err err = SKALD_ERR_INIT;

	if (load(&config, file, &set, set ? 1 : 0, &err)) {
		printf("\n    %s", err.text);
		CU_FAIL("refused");
	}
	return config;
}

static char *
printed(const struct skald_config *config)
{
	char *text = NULL;
	size_t bytes;
	FILE *out = open_memstream(&text, &bytes);

	skald_config_print(config, out);
	fclose(out);
	return text;
}

static void
has_defaults(void)
{
	struct skald_config *c = loaded(NULL, NULL);

	CHECK_TEXT(skald_config_text(c, "daemon", "roles"), "relay,orchestrator");
	CU_ASSERT(skald_config_ms(c, "daemon", "shutdown_timeout") == 30000);
	CU_ASSERT(skald_config_text(c, "database", "url") == NULL);
	CU_ASSERT(skald_config_text(c, "daemon", "installation") == NULL);
	CU_ASSERT(skald_config_ms(c, "database", "connect_timeout") == 5000);
	CHECK_TEXT(skald_config_text(c, "relay", "mode"), "poll");
	CU_ASSERT(skald_config_ms(c, "relay", "poll_min") == 2);
	CU_ASSERT(skald_config_ms(c, "relay", "poll_max") == 100);
	CU_ASSERT(skald_config_source_bytes(c, "main", "slot_limit") == 0);
	CU_ASSERT(skald_config_source_text(c, "main", "gate") == NULL);
	CU_ASSERT(skald_config_bool(c, "topics", "create"));
	CU_ASSERT(skald_config_int(c, "topics", "partitions") == 8);
	CU_ASSERT(skald_config_int(c, "topics", "replication") == -1);
	CHECK_TEXT(skald_config_text(c, "http", "listen"), "127.0.0.1:8085");
	CU_ASSERT(skald_config_ms(c, "retention", "outbox") == 86400000);
	CU_ASSERT(skald_config_ms(c, "retention", "audit") == 400 * 86400000LL);
	CHECK_TEXT(skald_config_text(c, "dev_broker", "listen"), "127.0.0.1:0");
	CU_ASSERT(skald_config_int(c, "service", "batch") == 500);
	CU_ASSERT(skald_config_int(c, "service", "lanes") == 4);
	CU_ASSERT(skald_config_int(c, "service", "attempts") == 5);
	CU_ASSERT(skald_config_ms(c, "service", "session_timeout") == 10000);
	skald_config_destroy(c);
	skald_config_destroy(NULL);
}

static void
flag_beats_environment_beats_file_beats_default(void)
{
	static const char file[] = "[topics]\npartitions = 2\n";
	struct skald_config *c = loaded(file, NULL);

	CU_ASSERT(skald_config_int(c, "topics", "partitions") == 2);
	skald_config_destroy(c);
	setenv("SKALD_TOPICS_PARTITIONS", "3", 1);
	c = loaded(file, NULL);
	CU_ASSERT(skald_config_int(c, "topics", "partitions") == 3);
	skald_config_destroy(c);
	c = loaded(file, "topics.partitions=4");
	CU_ASSERT(skald_config_int(c, "topics", "partitions") == 4);
	skald_config_destroy(c);
	unsetenv("SKALD_TOPICS_PARTITIONS");
}

static void
reads_comments_and_quotes(void)
{
	static const char file[] = "\xEF\xBB\xBF# first\r\n"
				   "; second\n"
				   "\n"
				   "[daemon]   ; behind a section\r\n"
				   "   installation = orders   # indented, commented\r\n"
				   "roles=relay , dev-broker\n"
				   "[database] # c\n"
				   "\turl = \"host=/tmp password='a ;b#' dbname=x\" ; c\n"
				   "[http]\n"
				   "listen = ; nothing\n"
				   "token_file = a;b#c\n"
				   "[kafka]\n"
				   "a = ' \"x\" \\n '\n"
				   "b = \"\\\"\\\\\\n\"\n"
				   "c : d = e\n"
				   "e =f=g;\n"
				   "f = it's #\n";
	struct skald_config *c = loaded(file, NULL);

	CHECK_TEXT(skald_config_text(c, "daemon", "installation"), "orders");
	CHECK_TEXT(skald_config_text(c, "daemon", "roles"), "relay,dev-broker");
	CHECK_TEXT(skald_config_text(c, "database", "url"),
		"host=/tmp password='a ;b#' dbname=x");
	CHECK_TEXT(skald_config_text(c, "http", "listen"), "");
	CHECK_TEXT(skald_config_text(c, "http", "token_file"), "a;b#c");
	CHECK_TEXT(skald_config_text(c, "kafka", "a"), " \"x\" \\n ");
	CHECK_TEXT(skald_config_text(c, "kafka", "b"), "\"\\\n");
	CHECK_TEXT(skald_config_text(c, "kafka", "c"), "d = e");
	CHECK_TEXT(skald_config_text(c, "kafka", "e"), "f=g;");
	CHECK_TEXT(skald_config_text(c, "kafka", "f"), "it's");
	CU_ASSERT(skald_config_text(c, "kafka", "unset") == NULL);
	skald_config_destroy(c);
}

/* libinih alone would cut a line at 200 bytes and a section at 49. */
static void
reads_long_values_whole(void)
{
	struct skald_config *c;
	struct skald_buf file, value;

	skald_buf_init(&file, 1 << 20);
	skald_buf_init(&value, 1 << 20);
	for (int i = 0; i < 2000; i++)
		skald_buf_addf(&value, "broker-%d:9092,", i);
	skald_buf_addf(&file, "[kafka]\nbootstrap.servers = %s ; end\n", value.data);
	c = loaded(file.data, NULL);
	CHECK_TEXT(skald_config_text(c, "kafka", "bootstrap.servers"), value.data);
	skald_config_destroy(c);
	skald_buf_done(&file);
	skald_buf_done(&value);
}

static const struct {
	const char *file, *set, *error;
} mistakes[] = {
	{ "\n[relay]\npoll_mim = 2ms\n", NULL,
		"skald.conf:3: relay.poll_mim: no such key; did you mean "
		"poll_min?" },
	{ "[realy]\n", NULL,
		"skald.conf:1: [realy]: no such section; did you mean [relay]?" },
	{ "[quite-another]\n", NULL, "skald.conf:1: [quite-another]: no such section" },
	{ "[relay]\nlisten = x\n", NULL,
		"skald.conf:2: relay.listen: no such key; it belongs into "
		"[dev_broker]" },
	{ "[relay]\npoll_min = 20\n", NULL,
		"skald.conf:2: relay.poll_min: must be a duration from 1ms to "
		"10s, not "
		"'20'; units are ms s m h d" },
	{ "[relay]\npoll_min = 0\n", NULL, "from 1ms to 10s, not '0'" },
	{ "[relay]\npoll_min = 11s\n", NULL, "from 1ms to 10s, not '11s'" },
	{ "[relay]\npoll_min = 2s\n", NULL,
		"skald.conf:2: relay.poll_min: must not be above poll_max, "
		"default" },
	{ "[relay]\nmode = wall\n", NULL,
		"skald.conf:2: relay.mode: must be poll or wal, not 'wall'; did you mean "
		"wal?" },
	{ "[relay]\nslot_limit = 10GB\n", NULL,
		"skald.conf:2: relay.slot_limit: must be bytes from 0 to "
		"1048576GiB, such as 64MiB or 10GiB, not '10GB'" },
	{ "[relay]\nslot_limit = -1\n", NULL, "not '-1'" },
	{ "[relay]\nslot_limit = 1048577GiB\n", NULL, "not '1048577GiB'" },
	{ "[relay]\ngate = a,,b\n", NULL,
		"relay.gate: must be a comma separated list, not ''" },
	{ "[source.p]\nurl = x\nmode = log\n", NULL,
		"source.p.mode: must be poll or wal, not 'log'" },
	{ "[topics]\npartitions = 0\n", NULL,
		"topics.partitions: must be a whole number from 1 to 10000, not "
		"'0'" },
	{ "[topics]\npartitions = 8x\n", NULL, "from 1 to 10000, not '8x'" },
	{ "[topics]\npartitions =\n", NULL, "from 1 to 10000, not ''" },
	{ "[topics]\nreplication = 0\n", NULL,
		"skald.conf:2: topics.replication: must be -1 or at least 1" },
	{ "[topics]\ncreate = maybe\n", NULL, "must be true or false, not 'maybe'" },
	{ "[log]\nlevel = inof\n", NULL,
		"log.level: must be error, warn, info or debug, not 'inof'; did "
		"you mean "
		"info?" },
	{ "[daemon]\nroles = relay, dev-borker\n", NULL,
		"must be a comma separated list of relay, "
		"orchestrator or dev-broker, not "
		"'dev-borker'; "
		"did you mean dev-broker?" },
	{ "[daemon]\nroles = relay,,\n", NULL, "not ''" },
	{ "[log]\nlevel = info\n\nlevel = info\n", NULL,
		"skald.conf:4: log.level: given twice, first in skald.conf:2" },
	{ "level = info\n", NULL, "skald.conf:1: a [section] must come first" },
	{ "[log]\nlevel info\n", NULL, "skald.conf:2: must be [section]" },
	{ "[log\n", NULL, "skald.conf:1: must be [section]" },
	{ "[log]\n= info\n", NULL, "skald.conf:2: a key has 1 to 127 bytes" },
	{ "[http]\nlisten = \"a\n", NULL,
		"skald.conf:2: the quoted value is not closed" },
	{ "[http]\nlisten = 'a' b\n", NULL,
		"skald.conf:2: text after the closing quote" },
	{ "[http]\nlisten = \"\\a\"\n", NULL, "skald.conf:2: in double quotes only" },
	{ "[source.main]\nurl = x\n", NULL,
		"skald.conf:1: [source.main]: a source's name" },
	{ "[source.]\nurl = x\n", NULL, "a source's name has 1 to 40 of" },
	{ "[source.A]\nurl = x\n", NULL, "a source's name has 1 to 40 of" },
	{ "[source.p]\npoll_max = 1s\n", NULL,
		"skald.conf:2: source.p.url: must be set" },
	{ "[source.p]\nurl = x\npol_max = 1s\n", NULL,
		"skald.conf:3: source.p.pol_max: no such key; did you mean "
		"poll_max?" },
	{ "[source.p]\nurl = x\npoll_min = 1s\n", NULL,
		"skald.conf:3: source.p.poll_min: must not be above poll_max" },
	{ NULL, "relay.pol_min=2ms",
		"--set: relay.pol_min: no such key; did you mean poll_min?" },
	{ NULL, "relay.poll_min", "--set relay.poll_min: must be section.key=value" },
	{ NULL, "relay=1", "--set relay=...: must be section.key=value" },
	{ NULL, ".x=1", "no such section" },
	{ NULL, "kafka.=1", "kafka.: no such key" },
};

static void
names_file_line_key_rule_and_the_nearest_key(void)
{
	for (size_t i = 0; i < sizeof(mistakes) / sizeof(mistakes[0]); i++) {
		struct skald_err err = SKALD_ERR_INIT;
		struct skald_config *config;
		enum skald_rc rc = load(&config, mistakes[i].file, &mistakes[i].set,
			mistakes[i].set ? 1 : 0, &err);

		if (rc != SKALD_REJECT || config ||
			!strstr(err.text, mistakes[i].error)) {
			printf("\n    got      %s\n    expected %s", err.text,
				mistakes[i].error);
			CU_FAIL("not refused, or otherwise");
		}
		CHECK_TEXT(err.origin, "config");
	}
}

static void
refuses_a_wrong_variable_by_its_name(void)
{
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_config *config;

	setenv("SKALD_RETENTION_OUTBOX", "1w", 1);
	CU_ASSERT(load(&config, NULL, NULL, 0, &err) == SKALD_REJECT);
	CU_ASSERT(strstr(err.text, "SKALD_RETENTION_OUTBOX: retention.outbox: must be a "
				   "duration from 0 to 36500d, not '1w'") != NULL);
	unsetenv("SKALD_RETENTION_OUTBOX");
}

/* Warnings go to stderr; what they say is read back. */
static void
warns_of_unknown_variables_only_of_known_sections(void)
{
	static const char *const names[] = { "SKALD_PORT", "SKALD_SEED", "SKALD_CONFIGS",
		"SKALD_LOG_LEVL", "SKALD_KAFKA_PORT", "SKALD_KAFKA_PORT_9092_TCP_ADDR",
		"SKALD_KAFKA_SERVICE_HOST", "SKALD_SOURCE_PAYMENT_POLL" };
	int saved = dup(STDERR_FILENO);
	FILE *file = tmpfile();
	struct skald_config *c;
	char text[4096];
	size_t bytes;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		setenv(names[i], "1", 1);
	dup2(fileno(file), STDERR_FILENO);
	c = loaded(NULL, NULL);
	dup2(saved, STDERR_FILENO);
	close(saved);
	rewind(file);
	bytes = fread(text, 1, sizeof(text) - 1, file);
	text[bytes] = '\0';
	fclose(file);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		bool is_warned = strstr(text, names[i]) != NULL;

		if (is_warned != (i >= 3))
			CU_FAIL(names[i]);
		unsetenv(names[i]);
	}
	CU_ASSERT(strstr(text, "SKALD_LOG_LEVL means nothing; did you mean "
			       "SKALD_LOG_LEVEL?") != NULL);
	CU_ASSERT(skald_config_text(c, "kafka", "port") == NULL);
	skald_config_destroy(c);
}

struct seen {
	char text[512];
};

static void
note(const char *key, const char *value, void *ctx)
{
	struct seen *seen = ctx;
	size_t used = strlen(seen->text);

	snprintf(seen->text + used, sizeof(seen->text) - used, "%s=%s ", key, value);
}

static void
passes_kafka_through_and_inherits_sources(void)
{
	struct skald_config *c;
	struct seen kafka = { "" }, sources = { "" };

	setenv("SKALD_KAFKA_BOOTSTRAP_SERVERS", "b:1", 1);
	setenv("SKALD_SOURCE_PAY_MENT_URL", "env", 1);
	setenv("SKALD_SOURCE_NEW_ONE_URL", "new", 1);
	c = loaded("[kafka]\nlinger.ms = 5\nbootstrap.servers = a:1\n"
		   "[relay]\npoll_max = 50ms\nmode = wal\nslot_limit = 10GiB\n"
		   "gate = a , standby-2\n"
		   "[source.pay_ment]\nurl = file\npoll_min = 7ms\nmode = poll\n"
		   "slot_limit = 512MiB\ngate =\n",
		"source.new-one.poll_max=9ms");
	skald_config_each(c, "kafka", note, &kafka);
	CHECK_TEXT(kafka.text, "linger.ms=5 bootstrap.servers=b:1 ");
	skald_config_each_section(c, "source.", note, &sources);
	CHECK_TEXT(sources.text, "pay_ment=source.pay_ment new-one=source.new-one ");
	CHECK_TEXT(skald_config_source_text(c, "pay_ment", "url"), "env");
	CU_ASSERT(skald_config_source_ms(c, "pay_ment", "poll_min") == 7);
	CU_ASSERT(skald_config_source_ms(c, "source.pay_ment", "poll_max") == 50);
	CHECK_TEXT(skald_config_source_text(c, "new-one", "url"), "new");
	CU_ASSERT(skald_config_source_ms(c, "new-one", "poll_max") == 9);
	CU_ASSERT(skald_config_source_ms(c, "main", "poll_max") == 50);
	CHECK_TEXT(skald_config_source_text(c, "pay_ment", "mode"), "poll");
	CHECK_TEXT(skald_config_source_text(c, "new-one", "mode"), "wal");
	CU_ASSERT(skald_config_source_bytes(c, "pay_ment", "slot_limit") == 512LL << 20);
	CU_ASSERT(skald_config_source_bytes(c, "new-one", "slot_limit") == 10LL << 30);
	CU_ASSERT(skald_config_source_text(c, "pay_ment", "gate") == NULL);
	CHECK_TEXT(skald_config_source_text(c, "new-one", "gate"), "a,standby-2");
	CU_ASSERT(skald_config_source_text(c, "main", "url") == NULL);
	skald_config_destroy(c);
	unsetenv("SKALD_KAFKA_BOOTSTRAP_SERVERS");
	unsetenv("SKALD_SOURCE_PAY_MENT_URL");
	unsetenv("SKALD_SOURCE_NEW_ONE_URL");
}

static void
prints_where_each_value_comes_from(void)
{
	struct skald_config *c;
	char *text;

	setenv("SKALD_LOG_LEVEL", "debug", 1);
	c = loaded("[relay]\n\npoll_min = 3ms\n", "topics.partitions=4");
	text = printed(c);
	CU_ASSERT(strstr(text, "[relay]\nmode = poll ; default\n"
			       "poll_min = 3ms ; skald.conf:3\n"
			       "poll_max = 100ms ; default\n"
			       "slot_limit = 0 ; default\n"
			       "gate = ; default\n") != NULL);
	CU_ASSERT(strstr(text, "\nlevel = debug ; SKALD_LOG_LEVEL\n") != NULL);
	CU_ASSERT(strstr(text, "\npartitions = 4 ; --set\n") != NULL);
	CU_ASSERT(strstr(text, "\ntoken_file = ; default\n") != NULL);
	unsetenv("SKALD_LOG_LEVEL");
	free(text);
	skald_config_destroy(c);
}

static void
never_prints_a_secret(void)
{
	static const struct {
		const char *url, *shown;
	} rows[] = {
		{ "postgresql://u:geheim@h:5432/db", "postgresql://u:***@h:5432/db" },
		{ "postgresql://u:ge@heim@h/db", "postgresql://u:***@h/db" },
		{ "postgresql://u:geheim%2F@h/db?password=geheim&x=1",
			"postgresql://u:***@h/db?password=***&x=1" },
		{ "postgresql:///db?sslpassword=geheim",
			"postgresql:///db?sslpassword=***" },
		{ "postgresql://u@h/db", "postgresql://u@h/db" },
		{ "postgresql:///db", "postgresql:///db" },
		{ "host=h password=geheim dbname=d", "host=h password=*** dbname=d" },
		{ "host=h PassWord = 'ge \\' heim' dbname=d",
			"host=h PassWord = *** dbname=d" },
		{ "password='geheim", "password=***" },
		{ "password=geheim", "password=***" },
		{ "password", "password" },
	};
	static const char *const keys[] = { "sasl.password", "ssl.key.password",
		"ssl.keystore.password", "ssl.key.pem", "sasl.oauthbearer.client.secret",
		"sasl.oauthbearer.config" };

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char set[256], line[256];
		struct skald_config *c;
		char *text;

		snprintf(set, sizeof(set), "database.url=%s", rows[i].url);
		c = loaded(NULL, set);
		text = printed(c);
		snprintf(line, sizeof(line), "[database]\nurl = %s ; --set\n",
			rows[i].shown);
		if (strstr(text, "heim") || !strstr(text, line))
			CHECK_TEXT(text, line);
		CHECK_TEXT(skald_config_text(c, "database", "url"), rows[i].url);
		free(text);
		skald_config_destroy(c);
	}
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		char set[256];
		struct skald_config *c;
		char *text;

		snprintf(set, sizeof(set), "kafka.%s=geheim", keys[i]);
		c = loaded(NULL, set);
		text = printed(c);
		CU_ASSERT(!strstr(text, "geheim"));
		CU_ASSERT(strstr(text, " = *** ; --set\n") != NULL);
		free(text);
		skald_config_destroy(c);
	}
}

/* What is printed can be read again and means the same. */
static void
prints_what_it_reads(void)
{
	struct skald_config *first, *second;
	char *text;

	first = loaded("[daemon]\ninstallation = \" a ;b \\\"\\n#\"\n"
		       "[http]\nlisten =\n[kafka]\nx = '\"'\ny = a;b\n"
		       "[source.p]\nurl = \"host=/x #\"\n",
		NULL);
	text = printed(first);
	second = loaded(text, NULL);
	free(text);
	CHECK_TEXT(skald_config_text(second, "daemon", "installation"), " a ;b \"\n#");
	CHECK_TEXT(skald_config_text(second, "http", "listen"), "");
	CHECK_TEXT(skald_config_text(second, "kafka", "x"), "\"");
	CHECK_TEXT(skald_config_text(second, "kafka", "y"), "a;b");
	CHECK_TEXT(skald_config_source_text(second, "p", "url"), "host=/x #");
	CU_ASSERT(skald_config_text(second, "http", "token_file") == NULL);
	skald_config_destroy(first);
	skald_config_destroy(second);
}

/* Uncommented, the sample is a configuration, and the default one. */
static void
sample_holds_every_default(void)
{
	struct skald_config *defaults = loaded(NULL, NULL), *c;
	char *text = NULL, *line, *rest;
	struct skald_buf file;
	size_t bytes;
	FILE *out = open_memstream(&text, &bytes);

	skald_config_sample(out);
	fclose(out);
	skald_buf_init(&file, 1 << 20);
	for (rest = text; (line = strsep(&rest, "\n")) != NULL;) {
		CU_ASSERT(strlen(line) <= 100);
		if (line[0] == ';' && line[1] != ' ' && line[1] != '\0')
			skald_buf_addf(&file, "%s%s\n", line + 1,
				strcmp(line, ";url =") == 0 ? " x" : "");
		else
			skald_buf_addf(&file, "%s\n", line);
	}
	free(text);
	c = loaded(file.data, NULL);
	for (unsigned i = 0; i < skald__option_count; i++) {
		const struct skald_option *o = &skald__options[i];
		const struct skald__value *value;

		if (skald__is_source(o->section) || strcmp(o->key, "url") == 0)
			continue;
		value = skald__config_find(c, o->section, o->key);
		CU_ASSERT(value && strncmp(value->where, "skald.conf:", 11) == 0);
		if (skald_config_text(defaults, o->section, o->key))
			CHECK_TEXT(skald_config_text(c, o->section, o->key),
				skald_config_text(defaults, o->section, o->key));
		else
			CU_ASSERT(!skald_config_text(c, o->section, o->key));
	}
	skald_buf_done(&file);
	skald_config_destroy(c);
	skald_config_destroy(defaults);
}

static void
finds_its_file(void)
{
	struct skald_config_args args = { .file = "other.conf" };
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_config *c = NULL;
	FILE *out = fopen("other.conf", "w");

	fputs("[log]\nlevel = error\n", out);
	fclose(out);
	CU_ASSERT(skald_config_load(&c, &args, &err) == SKALD_OK);
	CHECK_TEXT(skald_config_text(c, "log", "level"), "error");
	skald_config_destroy(c);
	setenv("SKALD_CONFIG", "other.conf", 1);
	c = loaded("[log]\nlevel = warn\n", NULL);
	CHECK_TEXT(skald_config_text(c, "log", "level"), "error");
	skald_config_destroy(c);
	unsetenv("SKALD_CONFIG");
	c = loaded("[log]\nlevel = warn\n", NULL);
	CHECK_TEXT(skald_config_text(c, "log", "level"), "warn");
	skald_config_destroy(c);
	args.file = "absent.conf";
	CU_ASSERT(skald_config_load(&c, &args, &err) == SKALD_REJECT);
	CHECK_TEXT(err.text, "could not open absent.conf: No such file or directory");
	args.file = ".";
	CU_ASSERT(skald_config_load(&c, &args, &err) == SKALD_REJECT);
	remove("other.conf");
}

static void
reads_bytes_with_units(void)
{
	static const struct skald_option option = { "x", "y", SKALD_OPTION_BYTES, "1", 1,
		16 << 20, NULL, "" };
	static const struct {
		const char *text;
		int64_t bytes; /* -1: refused */
	} rows[] = { { "1", 1 }, { "64KiB", 65536 }, { "16MiB", 16 << 20 }, { "10B", 10 },
		{ "17MiB", -1 }, { "0", -1 }, { "1KB", -1 }, { "KiB", -1 }, { "", -1 },
		{ "99999999999GiB", -1 }, { "1 KiB", -1 } };

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct skald_err err = SKALD_ERR_INIT;
		char text[32];
		int64_t n = -1;

		snprintf(text, sizeof(text), "%s", rows[i].text);
		CU_ASSERT((skald__value_check(&option, "w", "x.y", text, &n, &err) ==
				  SKALD_OK) == (rows[i].bytes >= 0));
		if (rows[i].bytes >= 0)
			CU_ASSERT(n == rows[i].bytes);
	}
}

static void
finds_the_nearest_word(void)
{
	static const char *const words[] = { "status", "doctor", "replay", "retry",
		"skip" };

	CHECK_TEXT(skald_nearest("stauts", words, 5), "status");
	CHECK_TEXT(skald_nearest("REPLY", words, 5), "replay");
	CHECK_TEXT(skald_nearest("retr", words, 5), "retry");
	CU_ASSERT(skald_nearest("explain", words, 5) == NULL);
	CU_ASSERT(skald_nearest("x", words, 5) == NULL);
	CU_ASSERT(skald_nearest("", words, 5) == NULL);
	CU_ASSERT(skald_nearest("status", words, 0) == NULL);
	CU_ASSERT(skald_nearest("a-word-of-more-than-sixty-three-bytes-is-no-word-that-"
				"anybody-mistypes",
			  words, 5) == NULL);
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(has_defaults),
		CHECK(flag_beats_environment_beats_file_beats_default),
		CHECK(reads_comments_and_quotes),
		CHECK(reads_long_values_whole),
		CHECK(names_file_line_key_rule_and_the_nearest_key),
		CHECK(refuses_a_wrong_variable_by_its_name),
		CHECK(warns_of_unknown_variables_only_of_known_sections),
		CHECK(passes_kafka_through_and_inherits_sources),
		CHECK(prints_where_each_value_comes_from),
		CHECK(never_prints_a_secret),
		CHECK(prints_what_it_reads),
		CHECK(sample_holds_every_default),
		CHECK(finds_its_file),
		CHECK(reads_bytes_with_units),
		CHECK(finds_the_nearest_word),
	};
	int failed;

	if (!mkdtemp(folder) || chdir(folder))
		return 1;
	failed = check_main("unit.base.config", cases, CHECK_COUNT(cases));
	remove("skald.conf");
	rmdir(folder);
	return failed;
}
