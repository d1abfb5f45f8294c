/* One run of a parity case through the public command line: `regraft tune` with the flags that the case asks for, then
 * `regraft run` on the probe. The table below is all that turns a case into flags. Tensors that the case lists as
 * constants are frozen: a file need not tell a buffer from a parameter.
 *
 * Cases exported in training mode: the exporter ran the model once on the example input (which make.py takes from
 * probe.npz), and that moved the running statistics in the file, while PyTorch's reference begins with those before the
 * export. So the tool is given the example with --example-input. The cases do not match without it, in any tool: what
 * they begin with is not in the file. */
#include <fcntl.h>
#include <spawn.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/runtime.h"
#include "tests/parity.h"

extern char **environ;

enum { ARGUMENTS_MAX = 4096 };

typedef struct Command {
    Arena *arena;
    char *items[ARGUMENTS_MAX];
    int count;
} Command;

static void add(Command *command, const char *text)
{
    if (command->count < ARGUMENTS_MAX - 1)
        command->items[command->count++] = arena_strdup(command->arena, text);
}

static void add_pair(Command *command, const char *flag, const char *value)
{
    add(command, flag);
    add(command, value);
}

/* The keys of a run, and the flags they become. */
static const struct {
    const char *key, *flag;
} numbers[] = {{"lr", "--lr"},
               {"momentum", "--momentum"},
               {"weight_decay", "--weight-decay"},
               {"eps", "--eps"},
               {"alpha", "--alpha"}};

static void add_run(Command *command, const ParityCase *c, const json_t *run)
{
    add_pair(command, "--optimizer", parity_string(run, "optimizer"));
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        const json_t *value = json_object_get(run, numbers[i].key);
        if (value != NULL)
            add_pair(command, numbers[i].flag, arena_printf(command->arena, "%.17g", json_number_value(value)));
    }
    if (json_is_true(json_object_get(run, "nesterov")))
        add(command, "--nesterov");
    const json_t *betas = json_object_get(run, "betas"), *trainable = json_object_get(run, "trainable");
    if (json_array_size(betas) == 2) {
        add_pair(command, "--beta1",
                 arena_printf(command->arena, "%.17g", json_number_value(json_array_get(betas, 0))));
        add_pair(command, "--beta2",
                 arena_printf(command->arena, "%.17g", json_number_value(json_array_get(betas, 1))));
    }
    if (json_is_array(trainable) && json_is_false(json_object_get(run, "names_in_export")))
        add_pair(command, "--train", "head");
    else
        for (size_t i = 0; i < json_array_size(trainable); i++)
            add_pair(command, "--train", json_string_value(json_array_get(trainable, i)));
    if (json_is_array(trainable)) /* a head is trained with everything else as in inference */
        add_pair(command, "--batchnorm", "running");
    const json_t *constants = json_object_get(c->json, "constants");
    for (size_t i = 0; i < json_array_size(constants) && json_is_string(trainable); i++)
        add_pair(command, "--freeze", json_string_value(json_array_get(constants, i)));
    if (strcmp(parity_string(c->json, "mode"), "train") == 0)
        add_pair(command, "--example-input", arena_printf(command->arena, "%s/probe.npz", c->folder));
}

/* What the case calls constants is frozen: a buffer that was kept under its own name (a table of positions) looks in
 * the file as a parameter does. Those that the tool would not train anyway cannot be named. What it calls parameters
 * and the tool a folded table (learned positions, read at every place) is named, where all are trained. So is what the
 * file still names of a head whose other names are gone. */
static Status add_exceptions(Command *command, const ParityCase *c, const json_t *run, Error *err)
{
    const json_t *constants = json_object_get(c->json, "constants"), *own = json_object_get(c->json, "parameters");
    bool all = json_is_string(json_object_get(run, "trainable")), named = false;
    Model *document = NULL;
    ParamList list;
    TRY(model_import(arena_printf(command->arena, "%s/model.onnx", c->folder), &builtin_ops, &document, err));
    Status status = params_find(document, false, &list, err);
    for (size_t i = 0; i < json_array_size(constants) && status == STATUS_OK; i++) {
        const char *name = json_string_value(json_array_get(constants, i));
        for (size_t p = 0; p < list.count; p++)
            if (list.items[p].trainable && strcmp(list.items[p].name, name) == 0)
                add_pair(command, "--freeze", name);
    }
    const json_t *names = json_object_get(run, "trainable");
    bool lost = json_is_array(names) && json_is_false(json_object_get(run, "names_in_export"));
    for (size_t p = 0; p < list.count && lost && status == STATUS_OK; p++)
        if (parity_in_module(names, list.items[p].name))
            add_pair(command, "--train", list.items[p].name);
    for (size_t p = 0; p < list.count && all && status == STATUS_OK; p++)
        if (list.items[p].looks_folded && parity_listed(own, list.items[p].name)) {
            if (!named)
                add_pair(command, "--train", "all");
            add_pair(command, "--train", list.items[p].name);
            named = true;
        }
    model_free(document);
    return status;
}

static Status spawn(const Command *command, const char *log, Error *err)
{
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 1, log, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    posix_spawn_file_actions_adddup2(&actions, 1, 2);
    pid_t child;
    int status = 0, failed = posix_spawn(&child, command->items[0], &actions, NULL, command->items, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (failed != 0)
        return fail(err, STATUS_ENVIRONMENT, "%s: cannot be run", command->items[0]);
    waitpid(child, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return STATUS_OK;
    Mapping text;
    Error ignored = {0};
    if (mapping_open(&text, log, &ignored) != STATUS_OK)
        return fail(err, STATUS_REJECTED, "the tool failed");
    int length = text.size < 300 ? (int)text.size : 300;
    fail(err, STATUS_REJECTED, "exit %d: %.*s", WIFEXITED(status) ? WEXITSTATUS(status) : -1, length,
         (const char *)text.data + text.size - (size_t)length);
    mapping_release(&text);
    for (char *p = err->message; *p != '\0'; p++)
        *p = *p == '\n' ? ' ' : *p;
    return STATUS_REJECTED;
}

static Status read_losses(const ParityCase *c, const char *path, ParityResult *result, Error *err)
{
    FILE *file = fopen(path, "r");
    char line[4096];
    int64_t step = 0;
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        json_t *event = json_loads(line, 0, NULL);
        if (strcmp(parity_string(event, "event"), "step") == 0 && step < c->steps)
            result->loss[step++] = json_number_value(json_object_get(event, "loss"));
        json_decref(event);
    }
    if (file != NULL)
        fclose(file);
    return step == c->steps ? STATUS_OK
                            : fail(err, STATUS_REJECTED, "%s: %lld steps, %lld expected", path, (long long)step,
                                   (long long)c->steps);
}

static Status read_outputs(const ParityCase *c, const char *path, ParityResult *result, Error *err)
{
    Npz npz;
    const json_t *outputs = json_object_get(c->json, "outputs");
    TRY(npz_open(&npz, path, err));
    Status status = STATUS_OK;
    for (size_t i = 0; i < json_array_size(outputs) && status == STATUS_OK; i++) {
        const Array *found = npz_find(&npz, json_string_value(json_array_get(outputs, i)));
        Array *copy;
        status = found == NULL ? fail(err, STATUS_REJECTED, "%s: an output is missing", path)
                               : array_convert(&result->arena, found, DTYPE_F64, &copy, err);
        if (status == STATUS_OK)
            result->outputs[result->output_count++] = copy;
    }
    npz_release(&npz);
    return status;
}

Status parity_tool(const ParityCase *c, const json_t *run, const char *tool, const char *scratch, ParityResult *result,
                   Error *err)
{
    Arena *arena = &result->arena;
    const char *model = arena_printf(arena, "%s/model.onnx", scratch), *log = arena_printf(arena, "%s/log", scratch);
    const char *outputs = arena_printf(arena, "%s/outputs.npz", scratch),
               *folder = arena_printf(arena, "%s/run", scratch);
    Command tune = {.arena = arena}, infer = {.arena = arena};
    add_pair(&tune, tool, "tune");
    add(&tune, arena_printf(arena, "%s/model.onnx", c->folder));
    add_pair(&tune, "--data", arena_printf(arena, "%s/train.npz", c->folder));
    add_pair(&tune, "--recipe", "plain");
    add_pair(&tune, "--loss", parity_string(c->json, "loss"));
    add_pair(&tune, "--batch", arena_printf(arena, "%lld", (long long)c->batch));
    add_pair(&tune, "--epochs", "1");
    add_run(&tune, c, run);
    TRY(add_exceptions(&tune, c, run, err));
    add_pair(&tune, "--run", folder);
    add_pair(&tune, "--output", model);
    add_pair(&infer, tool, "run");
    add(&infer, model);
    add_pair(&infer, "--input", arena_printf(arena, "%s/probe.npz", c->folder));
    add_pair(&infer, "--output", outputs);
    TRY(spawn(&tune, log, err));
    TRY(spawn(&infer, log, err));
    TRY(read_losses(c, arena_printf(arena, "%s/metrics.jsonl", folder), result, err));
    return read_outputs(c, outputs, result, err);
}
