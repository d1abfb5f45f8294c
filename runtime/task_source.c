/* Several tasks as one source of batches: in training a batch of each in turn, else one task after the other. */
#include <string.h>

#include "runtime/train.h"

enum { STREAM = 1000003 }; /* a source that begins anew within an epoch is shuffled as another epoch's */

static Status task_start(Source *base, uint64_t epoch, bool train, size_t batch, Error *err)
{
    TaskSource *s = base->context;
    s->train = train;
    s->epoch = epoch;
    s->batch = batch;
    s->round = s->task = s->rounds = 0;
    for (size_t i = 0; i < s->task_count; i++) {
        s->restarts[i] = 0;
        if (s->tasks[i] == NULL)
            continue;
        size_t batches = (s->tasks[i]->count + batch - 1) / batch;
        s->rounds = batches > s->rounds ? batches : s->rounds;
        TRY(s->tasks[i]->start(s->tasks[i], epoch, train, batch, err));
    }
    return STATUS_OK;
}

/* The next batch of task `i`, from the begin again when the pass is over. */
static Status next_of(TaskSource *s, size_t i, Batch *batch, Error *err)
{
    Source *task = s->tasks[i];
    TRY(task->next(task, batch, err));
    if (batch->size > 0)
        return STATUS_OK;
    s->restarts[i]++;
    TRY(task->start(task, s->epoch + s->restarts[i] * STREAM, true, s->batch, err));
    TRY(task->next(task, batch, err));
    return batch->size > 0 ? STATUS_OK : fail(err, STATUS_REJECTED, "a task has no samples to train on");
}

static Status next_in_turn(TaskSource *s, Batch *batch, Error *err)
{
    if (s->round == s->rounds)
        return STATUS_OK;
    TRY(next_of(s, s->task, batch, err));
    batch->only = s->task + 1;
    if (++s->task == s->task_count) {
        s->task = 0;
        s->round++;
    }
    return STATUS_OK;
}

static Status next_in_order(TaskSource *s, Batch *batch, Error *err)
{
    for (; s->task < s->task_count; s->task++) {
        if (s->tasks[s->task] == NULL)
            continue;
        TRY(s->tasks[s->task]->next(s->tasks[s->task], batch, err));
        batch->only = s->task + 1;
        if (batch->size > 0)
            return STATUS_OK;
    }
    return STATUS_OK;
}

static Status task_next(Source *base, Batch *batch, Error *err)
{
    TaskSource *s = base->context;
    memset(batch, 0, sizeof *batch);
    return s->train ? next_in_turn(s, batch, err) : next_in_order(s, batch, err);
}

Status task_source_init(TaskSource *source, Source *const *tasks, size_t count, Error *err)
{
    memset(source, 0, sizeof *source);
    if (count > SOURCE_MAX)
        return fail(err, STATUS_USAGE, "%zu tasks, at most %d", count, SOURCE_MAX);
    source->task_count = count;
    size_t longest = 0;
    for (size_t i = 0; i < count; i++) {
        source->tasks[i] = tasks[i];
        if (tasks[i] != NULL && tasks[i]->count > longest)
            longest = tasks[i]->count;
    }
    source->source = (Source){.count = longest * count, .context = source, .start = task_start, .next = task_next};
    return STATUS_OK;
}
