/* The tool's entry: finds the verb, runs it, prints the one line that says why it failed, and returns its Status as
 * exit code (docs/verbs.md lists the codes). */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/print.h"

#ifndef REGRAFT_VERSION
#define REGRAFT_VERSION "unknown"
#endif

static Status cmd_help(int argc, char **argv, Error *err);

/* In the order in which a user meets them. */
static const Command commands[] = {
    {"inspect", cmd_inspect, "what a model is: shapes, operators, parameters"},
    {"check", cmd_check, "whether it will run and train, and what is odd about it"},
    {"heads", cmd_heads, "where a model could be cut"},
    {"cut", cmd_cut, "remove the head; features become the output"},
    {"attach", cmd_attach, "put a new head on, or in the old one's place"},
    {"freeze", cmd_freeze, "mark parameters that are not to be trained"},
    {"tune", cmd_tune, "fine-tune a model on your data"},
    {"eval", cmd_eval, "how good a model is on labelled data"},
    {"predict", cmd_predict, "what a model makes of pictures or arrays"},
    {"features", cmd_features, "what the head reads, for every sample, as arrays"},
    {"diff", cmd_diff, "what differs between two models"},
    {"run", cmd_run, "one inference, or a folder of conformance cases"},
    {"ops", cmd_ops, "the operators that this build understands"},
    {"help", cmd_help, "this list, or `help VERB`"},
};
enum { COMMAND_COUNT = sizeof commands / sizeof *commands };

static Status find_command(const char *name, const Command **found, Error *err)
{
    const char *names[COMMAND_COUNT];
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        names[i] = commands[i].name;
        if (strcmp(name, names[i]) == 0) {
            *found = &commands[i];
            return STATUS_OK;
        }
    }
    const char *near = text_nearest(name, names, COMMAND_COUNT);
    if (near)
        return fail(err, STATUS_USAGE, "unknown verb '%s' (did you mean '%s'?)", name, near);
    return fail(err, STATUS_USAGE, "unknown verb '%s'; 'regraft help' lists them", name);
}

static void print_overview(FILE *stream)
{
    fprintf(stream, "Regraft fine-tunes ONNX models: import, cut the head, attach a new one, freeze, train, export.\n\n"
                    "Examples:\n"
                    "  regraft inspect model.onnx\n"
                    "  regraft tune model.onnx --data photos/ -o tuned.onnx\n\n"
                    "Verbs:\n");
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        fprintf(stream, "  %-10s %s\n", commands[i].name, commands[i].help);
    fprintf(
        stream,
        "\n'regraft VERB --help' starts with examples. Exit codes: 0 ok, 1 differs, 2 usage, 3 file or data rejected,\n"
        "4 unsupported, 5 ambiguous, 6 verification failed, 7 environment, 8 training failed, 130 interrupted.\n");
}

static Status cmd_help(int argc, char **argv, Error *err)
{
    if (argc < 2 || argv[1][0] == '-') {
        print_overview(stdout);
        return STATUS_OK;
    }
    const Command *command = NULL;
    TRY(find_command(argv[1], &command, err));
    if (command->run == cmd_help) {
        print_overview(stdout);
        return STATUS_OK;
    }
    char flag[] = "--help";
    char *arguments[] = {argv[1], flag, NULL};
    return command->run(2, arguments, err);
}

static Status run(int argc, char **argv, Error *err)
{
    if (argc < 2) {
        print_overview(stderr);
        return fail(err, STATUS_USAGE, "a verb is needed");
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("regraft " REGRAFT_VERSION "\n");
        return STATUS_OK;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        return cmd_help(1, argv, err);
    const Command *command = NULL;
    TRY(find_command(argv[1], &command, err));
    return command->run(argc - 1, argv + 1, err);
}

int main(int argc, char **argv)
{
    Error err = {0};
    print_init();
    mapping_guard();
    Status status = run(argc, argv, &err);
    if (mapping_was_cut() && (status == STATUS_OK || status == STATUS_DIFFERS))
        status =
            fail(&err, STATUS_REJECTED, "a file that was being read became shorter; results are not to be trusted");
    Status flushed = print_finish(&err);
    if (status == STATUS_OK)
        status = flushed;
    if (err.message[0] && status != STATUS_OK)
        say_error("%s", err.message);
    return (int)status;
}
