/*
 * help.c - what --help prints, at most 80 columns wide wherever it goes.
 */
#include "cli/own.h"

#include <string.h>

#define WIDTH       80
#define NAME_INDENT 2
#define TEXT_INDENT 24

void
skald__wrap(FILE *out, const char *text, unsigned column, unsigned indent)
{
	bool is_first = true;

	while (*text) {
		size_t word = strcspn(text, " \n");

		if (*text == '\n') { /* a paragraph, or a line that is kept */
			fputc('\n', out);
			column = 0;
			is_first = true;
			text++;
			continue;
		}
		if (!word) {
			/* white space at a line's begin is an indentation that is kept */
			if (column == 0) {
				fputc(' ', out);
				indent = 0;
			}
			text++;
			continue;
		}
		if (!is_first && column + 1 + word > WIDTH) {
			fputc('\n', out);
			column = 0;
			is_first = true;
		}
		while (is_first && column < indent) {
			fputc(' ', out);
			column++;
		}
		if (!is_first) {
			fputc(' ', out);
			column++;
		}
		(void)fwrite(text, 1, word, out);
		column += (unsigned)word;
		is_first = false;
		text += word;
	}
	fputc('\n', out);
}

static void
print_pair(FILE *out, const char *name, const char *text)
{
	int written = fprintf(out, "%*s%s", NAME_INDENT, "", name);

	if (written > TEXT_INDENT - 2) {
		fputc('\n', out);
		written = 0;
	}
	skald__wrap(out, text, written > 0 ? (unsigned)written : 0, TEXT_INDENT);
}

static void
print_flags(FILE *out, const struct skald__flag *flags)
{
	for (; flags->name; flags++) {
		char name[64];

		(void)snprintf(name, sizeof(name), "%s%s%s", flags->name,
			flags->value ? " " : "", flags->value ? flags->value : "");
		print_pair(out, name, flags->help);
	}
}

static void
print_command_line(FILE *out, const struct skald__command *command)
{
	char name[64];

	(void)snprintf(name, sizeof(name), "%s%s%s%s%s", command->noun,
		command->verb ? " " : "", command->verb ? command->verb : "",
		command->args ? " " : "", command->args ? command->args : "");
	print_pair(out, name, command->summary);
}

void
skald__help_noun(const char *noun, FILE *out)
{
	fprintf(out, "usage: skald %s VERB [flags]\n\n", noun);
	for (unsigned i = 0; i < skald__command_count; i++)
		if (strcmp(skald__commands[i].noun, noun) == 0)
			print_command_line(out, &skald__commands[i]);
	fputs("\nskald NOUN VERB --help says more.\n", out);
}

static void
help_command(const struct skald__command *command, FILE *out)
{
	fprintf(out, "usage: skald %s%s%s%s%s [flags]\n\n", command->noun,
		command->verb ? " " : "", command->verb ? command->verb : "",
		command->args ? " " : "", command->args ? command->args : "");
	skald__wrap(out, command->summary, 0, 0);
	if (command->more) {
		fputc('\n', out);
		skald__wrap(out, command->more, 0, 0);
	}
	if (command->flags && command->flags[0]) {
		fputs("\nFlags\n", out);
		for (unsigned i = 0; command->flags[i]; i++)
			print_flags(out, command->flags[i]);
	}
	fputs("\nFlags of every command\n", out);
	print_flags(out, skald__global_flags());
}

void
skald__help(const struct skald__cli *cli, FILE *out)
{
	if (cli->command) {
		help_command(cli->command, out);
		return;
	}
	fputs("usage: skald COMMAND [flags]\n\n", out);
	skald__wrap(out,
		"Sees and steers messages on their way from a PostgreSQL outbox through "
		"Kafka to their one effect, and those that could not be applied.",
		0, 0);
	fputs("\nCommands\n", out);
	for (unsigned i = 0; i < skald__command_count; i++)
		print_command_line(out, &skald__commands[i]);
	fputs("\nFlags of every command\n", out);
	print_flags(out, skald__global_flags());
	fputs("\nExit status: 0 done; 1 the answer is no; 2 usage or invalid input;\n"
	      "3 done in part; 4 stopped by a guard or not confirmed; 5 refused by the\n"
	      "current state; 6 database or broker unreachable.\n",
		out);
}
