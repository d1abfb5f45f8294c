/* What a training run shows and leaves behind: a line that renews itself on a terminal, plain lines elsewhere, JSON
 * events on request, and a run folder with metrics.jsonl, metrics.csv, arguments and results (docs/formats.md). */
#ifndef REGRAFT_CLI_PROGRESS_H
#define REGRAFT_CLI_PROGRESS_H

#include "cli/print.h"
#include "runtime/train.h"

typedef struct Progress {
    bool silent;            /* another process speaks for all */
    bool json, quiet, live; /* live: the last line of the terminal is ours */
    FILE *jsonl, *csv;      /* in the run folder; NULL: none */
    bool pending;           /* resuming: records wait here until it is known where the run goes on */
    Str pending_jsonl, pending_csv;
    const char *folder;
    const char *phase;
    double last_shown;
    uint64_t best_epoch;
    TrainBill bill; /* of the last training; zeros before */
} Progress;

/* `folder` NULL: nothing is kept. `resume`: an earlier run's files stay as they are until progress_resume. */
Status progress_open(Progress *progress, const char *folder, bool json, bool quiet, bool resume, Error *err);
/* The run goes on after `epochs` whole ones: their records are taken over from the earlier run, later ones (it was
 * stopped inside an epoch) are dropped, so that the files are those of an uninterrupted run. Does nothing unless
 * resuming. */
Status progress_resume(Progress *progress, uint64_t epochs, Error *err);
void progress_close(Progress *progress);
void progress_phase(Progress *progress, const char *phase);
/* ,"key":[{"target":...,"loss":...,...},...] */
void progress_scores(Str *line, const char *key, const TargetScore *scores, const char *const *names, size_t count);
void progress_event(const TrainEvent *event, void *progress); /* TrainOptions.on_event */
void progress_bill(const TrainBill *bill, void *progress);    /* TrainOptions.on_bill */
void json_put_bill(Json *json, const TrainBill *bill);        /* as member "memory", bytes */
/* One line of text for people; with --json an event of kind `event`. */
void progress_note(Progress *progress, const char *event, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A file of the run folder, written at once; nothing happens without a folder. */
Status progress_file(const Progress *progress, const char *name, const char *text, Error *err);

#endif
