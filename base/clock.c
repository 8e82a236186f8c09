#include "base/clock.h"

#include <stdio.h>
#include <time.h>

enum { US_PER_SECOND = 1000000, SECONDS_PER_DAY = 86400 };

static int64_t
read_us(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (int64_t)now.tv_sec * US_PER_SECOND + now.tv_nsec / 1000;
}

int64_t
skald_mono_us(void)
{
	return read_us(CLOCK_MONOTONIC);
}

int64_t
skald_mono_ms(void)
{
	return read_us(CLOCK_MONOTONIC) / 1000;
}

int64_t
skald_wall_us(void)
{
	return read_us(CLOCK_REALTIME);
}

/*
 * Days since 1970 and back in the proleptic Gregorian calendar, by Howard
 * Hinnant's algorithms: years begin in March, so that the leap day ends them.
 */
static int64_t
days_of(int64_t year, int64_t month, int64_t day)
{
	int64_t y = month <= 2 ? year - 1 : year;
	int64_t era = (y >= 0 ? y : y - 399) / 400;
	int64_t of_era = y - era * 400;
	int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;

	return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

static void
date_of(int64_t days, int64_t *year, int64_t *month, int64_t *day)
{
	int64_t z = days + 719468;
	int64_t era = (z >= 0 ? z : z - 146096) / 146097;
	int64_t doe = z - era * 146097;
	int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
	int64_t mp = (5 * doy + 2) / 153;

	*day = doy - (153 * mp + 2) / 5 + 1;
	*month = mp < 10 ? mp + 3 : mp - 9;
	*year = yoe + era * 400 + (*month <= 2);
}

static char *
put_digits(char *dst, int64_t value, int digits)
{
	for (int i = digits - 1; i >= 0; i--) {
		dst[i] = (char)('0' + value % 10);
		value /= 10;
	}
	return dst + digits;
}

void
skald_time_format(int64_t wall_us, char dst[SKALD_TIME_TEXT_BYTES])
{
	/* 0000-01-01 and 9999-12-31: RFC 3339 has four digits for the year. */
	const int64_t low = -719528, high = 2932896;
	int64_t seconds = wall_us / US_PER_SECOND;
	int64_t us = wall_us % US_PER_SECOND;
	int64_t days, of_day, year, month, day;

	if (us < 0) {
		us += US_PER_SECOND;
		seconds--;
	}
	days = seconds / SECONDS_PER_DAY;
	of_day = seconds % SECONDS_PER_DAY;
	if (of_day < 0) {
		of_day += SECONDS_PER_DAY;
		days--;
	}
	if (days < low || days > high)
		days = days < low ? low : high;
	date_of(days, &year, &month, &day);
	dst = put_digits(dst, year, 4);
	*dst++ = '-';
	dst = put_digits(dst, month, 2);
	*dst++ = '-';
	dst = put_digits(dst, day, 2);
	*dst++ = 'T';
	dst = put_digits(dst, of_day / 3600, 2);
	*dst++ = ':';
	dst = put_digits(dst, of_day / 60 % 60, 2);
	*dst++ = ':';
	dst = put_digits(dst, of_day % 60, 2);
	*dst++ = '.';
	dst = put_digits(dst, us, 6);
	*dst++ = 'Z';
	*dst = '\0';
}

/* Take exactly count digits off the front. */
static bool
take_digits(struct skald_slice *s, size_t count, int64_t *value)
{
	int64_t n = 0;

	if (s->bytes < count)
		return false;
	for (size_t i = 0; i < count; i++) {
		if (s->data[i] < '0' || s->data[i] > '9')
			return false;
		n = n * 10 + (s->data[i] - '0');
	}
	s->data += count;
	s->bytes -= count;
	*value = n;
	return true;
}

/* Take one of the characters off the front; 0 when there is none. */
static char
take_one_of(struct skald_slice *s, const char *characters)
{
	char c;

	if (!s->bytes || !s->data[0] || !strchr(characters, s->data[0]))
		return 0;
	c = s->data[0];
	s->data++;
	s->bytes--;
	return c;
}

static bool
take_date(struct skald_slice *s, int64_t *days)
{
	static const int64_t lengths[] = { 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30,
		31 };
	int64_t year, month, day;
	bool is_leap;

	if (!take_digits(s, 4, &year) || !take_one_of(s, "-") ||
		!take_digits(s, 2, &month) || !take_one_of(s, "-") ||
		!take_digits(s, 2, &day))
		return false;
	is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
	if (month < 1 || month > 12 || day < 1 || day > lengths[month - 1] ||
		(month == 2 && day == 29 && !is_leap))
		return false;
	*days = days_of(year, month, day);
	return true;
}

/* ".123456": microseconds; further digits are read and dropped. */
static bool
take_fraction(struct skald_slice *s, int64_t *us)
{
	int64_t digit, scale = US_PER_SECOND;

	*us = 0;
	if (!take_one_of(s, "."))
		return true;
	if (!s->bytes || s->data[0] < '0' || s->data[0] > '9')
		return false;
	while (take_digits(s, 1, &digit)) {
		scale /= 10;
		*us += digit * scale;
	}
	return true;
}

static bool
take_offset(struct skald_slice *s, int64_t *seconds)
{
	int64_t hours, minutes;
	char sign = take_one_of(s, "Zz+-");

	*seconds = 0;
	if (sign == 'Z' || sign == 'z')
		return true;
	if (!sign || !take_digits(s, 2, &hours) || !take_one_of(s, ":") ||
		!take_digits(s, 2, &minutes) || hours > 23 || minutes > 59)
		return false;
	*seconds = (hours * 60 + minutes) * 60 * (sign == '-' ? -1 : 1);
	return true;
}

bool
skald_time_parse(struct skald_slice text, int64_t *wall_us)
{
	int64_t days, hour, minute, second, us, offset, at;

	if (!take_date(&text, &days) || !take_one_of(&text, "Tt ") ||
		!take_digits(&text, 2, &hour) || !take_one_of(&text, ":") ||
		!take_digits(&text, 2, &minute) || !take_one_of(&text, ":") ||
		!take_digits(&text, 2, &second) || !take_fraction(&text, &us) ||
		!take_offset(&text, &offset) || text.bytes)
		return false;
	if (hour > 23 || minute > 59 || second > 60)
		return false;
	at = days * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second - offset;
	if (second == 60 && at % SECONDS_PER_DAY != 0) /* leap seconds end a UTC day */
		return false;
	*wall_us = at * US_PER_SECOND + us;
	return true;
}

static const struct {
	const char *name;
	int64_t ms;
} units[] = { { "d", 86400000 }, { "h", 3600000 }, { "m", 60000 }, { "s", 1000 },
	{ "ms", 1 } };

bool
skald_duration_parse(struct skald_slice text, int64_t *ms)
{
	int64_t n = 0, digit;
	bool any = false;

	if (skald_slice_is_text(text, "0")) {
		*ms = 0;
		return true;
	}
	while (take_digits(&text, 1, &digit)) {
		if (n > (INT64_MAX - digit) / 10)
			return false;
		n = n * 10 + digit;
		any = true;
	}
	for (size_t i = 0; any && i < sizeof(units) / sizeof(units[0]); i++) {
		if (!skald_slice_is_text(text, units[i].name))
			continue;
		if (n > INT64_MAX / units[i].ms)
			return false;
		*ms = n * units[i].ms;
		return true;
	}
	return false;
}

void
skald_duration_format(int64_t ms, char *dst, unsigned long dst_bytes)
{
	size_t i = 0;

	if (ms == 0) {
		snprintf(dst, dst_bytes, "0");
		return;
	}
	while (ms % units[i].ms != 0)
		i++;
	snprintf(dst, dst_bytes, "%lld%s", (long long)(ms / units[i].ms), units[i].name);
}
