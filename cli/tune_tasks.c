/* Several tasks on one trunk: every --task OUTPUT=PATH is an output of the model with data of its own. An update takes
 * one batch of every task and the sum of their losses, each by its weight; an epoch is a pass over the largest data
 * set. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/tune.h"

static Status find_output(const Tune *tune, const char *text, size_t length, size_t *output, Error *err)
{
    const Graph *graph = tune->document->graph;
    Str have;
    for (size_t i = 0; i < graph->output_count; i++) {
        const char *name = graph->outputs[i]->name;
        if (strlen(name) == length && strncmp(name, text, length) == 0) {
            *output = i;
            return STATUS_OK;
        }
    }
    str_init(&have);
    for (size_t i = 0; i < graph->output_count; i++)
        str_printf(&have, "%s%s", i == 0 ? "" : ", ", graph->outputs[i]->name);
    fail(err, STATUS_USAGE, "--task: the model has no output '%.*s'; there are: %.400s (`attach --task` makes heads)",
         (int)length, text, have.text);
    str_release(&have);
    return STATUS_USAGE;
}

/* "colour=data/colours.npz" */
static Status open_task(Tune *tune, const char *text, size_t i, Error *err)
{
    Task *task = &tune->tasks[i];
    const char *equals = strchr(text, '=');
    size_t output;
    if (equals == NULL || equals == text || equals[1] == '\0')
        return fail(err, STATUS_USAGE, "--task: '%s' is not OUTPUT=PATH", text);
    TRY(find_output(tune, text, (size_t)(equals - text), &output, err));
    task->name = tune->document->graph->outputs[output]->name;
    for (size_t k = 0; k < i; k++)
        if (tune->tasks[k].name == task->name)
            return fail(err, STATUS_USAGE, "--task: output '%s' is named twice", task->name);
    TRY(tune_open_data(tune, equals + 1, &task->data, err));
    if (dataset_target_count(task->data.train) != 1)
        return fail(err, STATUS_REJECTED, "%s: a task has one target, found %d", equals + 1,
                    dataset_target_count(task->data.train));
    TRY(tune_choose_loss(tune, dataset_target(task->data.train, 0), i, tune->fields->tasks.count, output, err));
    TRY(tune_settle_dtypes(tune, &task->data, &tune->losses[i], 1, err));
    tune->target_names[i] = task->name;
    return tune_find_lengths(tune, &task->data, &tune->losses[i], 1, task->lengths, err);
}

Status tasks_open(Tune *tune, Error *err)
{
    const TuneFields *f = tune->fields;
    if (f->tasks.count > SOURCE_MAX)
        return fail(err, STATUS_USAGE, "%zu tasks, at most %d", f->tasks.count, SOURCE_MAX);
    if (f->val != NULL || f->test != NULL || f->only.count > 0 || f->accumulate > 1 || f->balance ||
        f->recipe == RECIPE_PROBE)
        return fail(err, STATUS_USAGE,
                    "--val, --test, --only, --accumulate, --balance and --recipe probe do not go with --task");
    tune->tasks = calloc(f->tasks.count, sizeof *tune->tasks);
    if (tune->tasks == NULL)
        return fail(err, STATUS_ENVIRONMENT, "no memory for %zu tasks", f->tasks.count);
    for (size_t i = 0; i < f->tasks.count; i++) {
        tune->task_count = i + 1; /* so that what was opened is closed */
        TRY(open_task(tune, f->tasks.items[i], i, err));
    }
    tune->loss_count = tune->task_count;
    tune->data = tune->tasks[0].data;
    tune->task = TASK_OTHER;
    return STATUS_OK;
}

void tasks_release(Tune *tune)
{
    for (size_t i = 0; i < tune->task_count; i++) {
        for (size_t p = 0; p < 3; p++)
            lengths_release(&tune->tasks[i].lengths[p]);
        data_close(&tune->tasks[i].data);
    }
    if (tune->task_count > 0)
        tune->data = (DataParts){.train = NULL};
    free(tune->tasks);
    tune->tasks = NULL;
    tune->task_count = 0;
}

static const Dataset *part_of(const DataParts *data, size_t part)
{
    return part == PART_TRAIN ? data->train : part == PART_VAL ? data->val : data->test;
}

const Lengths *tune_lengths_of(const Tune *tune, const Dataset *set)
{
    for (size_t p = 0; p < 3; p++) {
        if (set == part_of(&tune->data, p) && tune->task_count == 0 && tune->lengths[p].of != NULL)
            return &tune->lengths[p];
        for (size_t i = 0; i < tune->task_count; i++)
            if (set == part_of(&tune->tasks[i].data, p) && tune->tasks[i].lengths[p].of != NULL)
                return &tune->tasks[i].lengths[p];
    }
    return NULL;
}

Status part_open(Tune *tune, Part part, PartSource *source, Error *err)
{
    Source *tasks[SOURCE_MAX] = {NULL};
    memset(source, 0, sizeof *source);
    source->count = tune->task_count == 0 ? 1 : tune->task_count;
    bool any = false;
    for (size_t i = 0; i < source->count; i++) {
        const Dataset *set = part_of(tune->task_count == 0 ? &tune->data : &tune->tasks[i].data, part);
        if (set == NULL)
            continue;
        TRY(tune_source(tune, set, part == PART_TRAIN, &source->sets[i], err));
        tasks[i] = &source->sets[i].source;
        any = true;
    }
    if (!any)
        return STATUS_OK;
    if (tune->task_count == 0) {
        source->source = tasks[0];
        return STATUS_OK;
    }
    TRY(task_source_init(&source->tasks, tasks, source->count, err));
    source->source = &source->tasks.source;
    return STATUS_OK;
}

void part_release(PartSource *source)
{
    for (size_t i = 0; i < source->count; i++)
        dataset_source_release(&source->sets[i]);
    memset(source, 0, sizeof *source);
}
