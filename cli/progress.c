/* Showing and recording a training run; see progress.h. */
#include "cli/progress.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static Status open_file(const char *folder, const char *name, bool append, FILE **file, Error *err)
{
    Str path;
    str_init(&path);
    str_printf(&path, "%s/%s", folder, name);
    *file = fopen(path.text, append ? "a" : "w");
    Status status = *file == NULL ? fail(err, STATUS_ENVIRONMENT, "%s: cannot write", path.text) : STATUS_OK;
    str_release(&path);
    return status;
}

static const char csv_heading[] =
    "event,phase,epoch,step,loss,lr,train_loss,train_accuracy,val_loss,val_accuracy,val_auc,seconds\n";

Status progress_open(Progress *progress, const char *folder, bool json, bool quiet, bool resume, Error *err)
{
    memset(progress, 0, sizeof *progress);
    progress->json = json;
    progress->quiet = quiet;
    progress->phase = "";
    progress->folder = folder;
    if (folder == NULL)
        return STATUS_OK;
    progress->pending = resume;
    str_init(&progress->pending_jsonl);
    str_init(&progress->pending_csv);
    if (resume) {
        str_append(&progress->pending_csv, csv_heading);
        return STATUS_OK;
    }
    TRY(folder_make(folder, err));
    TRY(open_file(folder, "metrics.jsonl", false, &progress->jsonl, err));
    TRY(open_file(folder, "metrics.csv", false, &progress->csv, err));
    fputs(csv_heading, progress->csv);
    return STATUS_OK;
}

/* ---- going on ---------------------------------------------------------------------------------------------------- */

/* The epoch that a record is of; 0: it is no step and no epoch. */
static uint64_t epoch_of_json(const char *line)
{
    bool counts = text_starts(line, "{\"event\":\"step\"") || text_starts(line, "{\"event\":\"epoch\"");
    const char *key = counts ? strstr(line, "\"epoch\":") : NULL;
    return key == NULL ? 0 : strtoull(key + 8, NULL, 10);
}

static uint64_t epoch_of_csv(const char *line)
{
    bool counts = text_starts(line, "step,") || text_starts(line, "epoch,");
    const char *phase = counts ? strchr(line, ',') : NULL, *epoch = phase == NULL ? NULL : strchr(phase + 1, ',');
    return epoch == NULL ? 0 : strtoull(epoch + 1, NULL, 10);
}

/* Whole lines of the earlier file that are of the first `epochs`, appended; a file that is not there has none. */
static void take_over(const char *path, uint64_t epochs, uint64_t (*epoch_of)(const char *line), Str *out)
{
    Mapping file;
    Error none = {0};
    Str line;
    if (mapping_open(&file, path, &none) != STATUS_OK)
        return;
    str_init(&line);
    const char *at = (const char *)file.data, *end = at + file.size;
    for (const char *newline; at < end && (newline = memchr(at, '\n', (size_t)(end - at))) != NULL; at = newline + 1) {
        str_clear(&line);
        str_append_bytes(&line, at, (size_t)(newline - at) + 1);
        uint64_t epoch = epoch_of(line.text);
        if (epoch > 0 && epoch <= epochs)
            str_append_bytes(out, line.text, line.length);
    }
    str_release(&line);
    mapping_release(&file);
}

static Status go_on_in(const char *folder, const char *name, uint64_t epochs, uint64_t (*epoch_of)(const char *line),
                       Str *pending, FILE **file, Error *err)
{
    Str path;
    str_init(&path);
    str_printf(&path, "%s/%s", folder, name);
    take_over(path.text, epochs, epoch_of, pending);
    Status status = file_write_text(path.text, pending->text, err);
    str_release(&path);
    str_clear(pending);
    return status == STATUS_OK ? open_file(folder, name, true, file, err) : status;
}

Status progress_resume(Progress *progress, uint64_t epochs, Error *err)
{
    if (!progress->pending)
        return STATUS_OK;
    progress->pending = false;
    TRY(go_on_in(progress->folder, "metrics.jsonl", epochs, epoch_of_json, &progress->pending_jsonl, &progress->jsonl,
                 err));
    return go_on_in(progress->folder, "metrics.csv", epochs, epoch_of_csv, &progress->pending_csv, &progress->csv, err);
}

static void put_json_line(Progress *progress, const char *line)
{
    if (progress->pending)
        str_append(&progress->pending_jsonl, line);
    else if (progress->jsonl != NULL) {
        fputs(line, progress->jsonl);
        fflush(progress->jsonl); /* whoever is killed leaves whole lines */
    }
}

static void put_csv_line(Progress *progress, const char *line)
{
    if (progress->pending)
        str_append(&progress->pending_csv, line);
    else if (progress->csv != NULL) {
        fputs(line, progress->csv);
        fflush(progress->csv);
    }
}

void progress_close(Progress *progress)
{
    if (progress->live)
        fputc('\n', stderr);
    if (progress->jsonl != NULL)
        fclose(progress->jsonl);
    if (progress->csv != NULL)
        fclose(progress->csv);
    if (progress->folder != NULL) {
        str_release(&progress->pending_jsonl);
        str_release(&progress->pending_csv);
    }
    memset(progress, 0, sizeof *progress);
}

Status progress_file(const Progress *progress, const char *name, const char *text, Error *err)
{
    if (progress->folder == NULL)
        return STATUS_OK;
    Str path;
    str_init(&path);
    str_printf(&path, "%s/%s", progress->folder, name);
    Status status = file_write_text(path.text, text, err);
    str_release(&path);
    return status;
}

void progress_phase(Progress *progress, const char *phase)
{
    progress->phase = phase;
}

static void end_live_line(Progress *progress)
{
    if (progress->live)
        fprintf(stderr, "\r\033[K");
    progress->live = false;
}

void progress_note(Progress *progress, const char *event, const char *format, ...)
{
    if (progress->silent)
        return;
    char text[900];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    Str line;
    str_init(&line);
    str_printf(&line, "{\"event\":\"%s\",\"text\":", event);
    str_append_json(&line, text);
    str_append(&line, "}\n");
    put_json_line(progress, line.text);
    if (progress->json) {
        fputs(line.text, stdout);
        fflush(stdout);
    } else if (!progress->quiet || strcmp(event, "warning") == 0) {
        end_live_line(progress);
        if (strcmp(event, "warning") == 0)
            fprintf(stderr, "%swarning: %s", style_on(stderr, STYLE_YELLOW), style_off(stderr));
        fprintf(stderr, "%s\n", text);
    }
    str_release(&line);
}

/* ---- records ----------------------------------------------------------------------------------------------------- */

static void put_number(Str *line, const char *key, double value)
{
    if (isfinite(value))
        str_printf(line, ",\"%s\":%.9g", key, value);
}

static void put_score(Str *line, const TargetScore *score)
{
    put_number(line, "loss", score->loss);
    put_number(line, "accuracy", score->accuracy);
    put_number(line, "mean_iou", score->mean_iou);
    put_number(line, "mean_absolute_error", score->absolute_error);
    put_number(line, "mean_squared_error", score->squared_error);
}

void progress_scores(Str *line, const char *key, const TargetScore *scores, const char *const *names, size_t count)
{
    str_printf(line, ",\"%s\":[", key);
    for (size_t i = 0; i < count; i++) {
        str_append(line, i == 0 ? "{\"target\":" : ",{\"target\":");
        str_append_json(line, names == NULL || names[i] == NULL ? "y" : names[i]);
        put_score(line, &scores[i]);
        str_append(line, "}");
    }
    str_append(line, "]");
}

static void record(Str *line, const char *phase, const TrainEvent *e)
{
    if (e->kind == EVENT_STEP) {
        str_printf(line, "{\"event\":\"step\",\"phase\":\"%s\",\"epoch\":%llu,\"step\":%llu", phase,
                   (unsigned long long)e->epoch, (unsigned long long)e->step);
        put_number(line, "loss", e->loss);
        put_number(line, "lr", e->lr);
        put_number(line, "gradient_norm", e->norm);
    } else if (e->kind == EVENT_EPOCH) {
        str_printf(line, "{\"event\":\"epoch\",\"phase\":\"%s\",\"epoch\":%llu", phase, (unsigned long long)e->epoch);
        put_number(line, "train_loss", e->train_loss);
        put_number(line, "train_accuracy", e->train_accuracy);
        put_number(line, "val_loss", e->val_loss);
        put_number(line, "val_accuracy", e->val_accuracy);
        put_number(line, "val_auc", e->val_auc);
        if (e->targets != NULL)
            progress_scores(line, "val_targets", e->targets, e->target_names, e->target_count);
        put_number(line, "seconds", e->seconds);
    } else if (e->kind == EVENT_END) {
        str_printf(line, "{\"event\":\"end\",\"phase\":\"%s\",\"epoch\":%llu,\"step\":%llu", phase,
                   (unsigned long long)e->epoch, (unsigned long long)e->step);
    } else {
        return;
    }
    str_append(line, "}\n");
}

static void record_csv(Progress *progress, const TrainEvent *e)
{
    if (e->kind != EVENT_STEP && e->kind != EVENT_EPOCH)
        return;
    bool step = e->kind == EVENT_STEP;
    Str line;
    str_init(&line);
    str_printf(&line, "%s,%s,%llu,%llu", step ? "step" : "epoch", progress->phase, (unsigned long long)e->epoch,
               (unsigned long long)e->step);
    const double values[] = {step ? e->loss : NAN,       step ? e->lr : NAN,
                             step ? NAN : e->train_loss, step ? NAN : e->train_accuracy,
                             step ? NAN : e->val_loss,   step ? NAN : e->val_accuracy,
                             step ? NAN : e->val_auc,    e->seconds};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        str_append(&line, ",");
        if (isfinite(values[i]))
            str_printf(&line, "%.9g", values[i]);
    }
    str_append(&line, "\n");
    put_csv_line(progress, line.text);
    str_release(&line);
}

/* ---- people ------------------------------------------------------------------------------------------------------ */

static void show_step(Progress *progress, const TrainEvent *e)
{
    double now = seconds_now();
    if (!print_is_terminal(stderr) || now - progress->last_shown < 0.2)
        return;
    progress->last_shown = now;
    progress->live = true;
    fprintf(stderr, "\r\033[K%s  epoch %llu/%llu  step %llu/%llu  loss %.4f  %.0f samples/s  %s left", progress->phase,
            (unsigned long long)e->epoch, (unsigned long long)e->epochs, (unsigned long long)e->step,
            (unsigned long long)e->steps, e->loss, e->images_per_second, human_seconds(e->seconds_left).text);
    fflush(stderr);
}

/* What an accuracy does not say: overlap, errors, and every target's own when there are several. */
static void show_targets(const TrainEvent *e)
{
    for (size_t i = 0; i < e->target_count && e->targets != NULL; i++) {
        const TargetScore *s = &e->targets[i];
        if (e->target_count > 1)
            fprintf(stderr, "  %s%s", i == 0 ? "| " : "",
                    e->target_names == NULL || e->target_names[i] == NULL ? "y" : e->target_names[i]);
        if (e->target_count > 1 && isfinite(s->accuracy))
            fprintf(stderr, " %.1f %%", 100 * s->accuracy);
        if (isfinite(s->mean_iou))
            fprintf(stderr, "  IoU %.1f %%", 100 * s->mean_iou);
        if (isfinite(s->absolute_error))
            fprintf(stderr, "  error %.4g", s->absolute_error);
    }
}

static void show_epoch(Progress *progress, const TrainEvent *e)
{
    end_live_line(progress);
    fprintf(stderr, "%-6s epoch %2llu/%llu  loss %.4f", progress->phase, (unsigned long long)e->epoch,
            (unsigned long long)e->epochs, e->train_loss);
    if (isfinite(e->train_accuracy))
        fprintf(stderr, "  accuracy %5.1f %%", 100 * e->train_accuracy);
    if (isfinite(e->val_loss))
        fprintf(stderr, "  | val loss %.4f", e->val_loss);
    if (isfinite(e->val_accuracy))
        fprintf(stderr, "  accuracy %5.1f %%", 100 * e->val_accuracy);
    if (isfinite(e->val_auc))
        fprintf(stderr, "  AUC %.4f", e->val_auc);
    show_targets(e);
    fprintf(stderr, "  | %s, %.0f samples/s\n", human_seconds(e->seconds).text, e->images_per_second);
}

void progress_event(const TrainEvent *event, void *context)
{
    Progress *progress = context;
    if (progress->silent)
        return;
    Str line;
    str_init(&line);
    record(&line, progress->phase, event);
    put_json_line(progress, line.text);
    record_csv(progress, event);
    if (progress->json) {
        fputs(line.text, stdout);
        fflush(stdout);
    } else if (!progress->quiet && event->kind == EVENT_STEP) {
        show_step(progress, event);
    } else if (!progress->quiet && event->kind == EVENT_EPOCH) {
        show_epoch(progress, event);
    }
    if (event->kind == EVENT_END)
        end_live_line(progress);
    str_release(&line);
}

/* ---- memory ----------------------------------------------------------------------------------------------------- */

typedef struct BillLine {
    const char *name;
    size_t bytes;
} BillLine;

enum { BILL_LINES = 8 };

static void bill_lines(const TrainBill *b, BillLine lines[BILL_LINES])
{
    const BillLine all[BILL_LINES] = {{"parameters", b->parameters},   {"optimizer", b->optimizer},
                                      {"activations", b->activations}, {"gradients", b->gradients},
                                      {"workspace", b->workspace},     {"cache", b->cache},
                                      {"others", b->others},           {"process", b->process}};
    memcpy(lines, all, sizeof all);
}

void json_put_bill(Json *json, const TrainBill *bill)
{
    BillLine lines[BILL_LINES];
    bill_lines(bill, lines);
    json_put_open(json, "memory", '{');
    for (int i = 0; i < BILL_LINES; i++)
        json_put_int(json, lines[i].name, (int64_t)lines[i].bytes);
    json_put_int(json, "total", (int64_t)train_bill_total(bill));
    json_put_int(json, "samples_a_run", (int64_t)bill->part_rows);
    json_put_real(json, "computed_again", bill->again);
    json_close(json, '}');
}

void progress_bill(const TrainBill *bill, void *context)
{
    Progress *progress = context;
    progress->bill = *bill;
    if (progress->silent)
        return;
    BillLine lines[BILL_LINES];
    Str text, record;
    bill_lines(bill, lines);
    str_init(&text);
    str_init(&record);
    str_append(&record, "{\"event\":\"memory\"");
    for (int i = 0; i < BILL_LINES; i++) {
        str_printf(&text, "%s%s %s", i == 0 ? "memory: " : ", ", lines[i].name, human_bytes(lines[i].bytes).text);
        str_printf(&record, ",\"%s\":%zu", lines[i].name, lines[i].bytes);
    }
    str_printf(&text, "; %s in all", human_bytes(train_bill_total(bill)).text);
    if (bill->again > 0)
        str_printf(&text, ", %.0f %% of the forward pass computed again", 100 * bill->again);
    if (bill->part_rows > 0)
        str_printf(&text, ", %zu samples at a time", bill->part_rows);
    str_printf(&record, ",\"total\":%zu,\"samples_a_run\":%zu,\"computed_again\":%.6g}\n", train_bill_total(bill),
               bill->part_rows, bill->again);
    put_json_line(progress, record.text);
    if (progress->json) {
        fputs(record.text, stdout);
        fflush(stdout);
    } else if (!progress->quiet) {
        end_live_line(progress);
        fprintf(stderr, "%s\n", text.text);
    }
    str_release(&text);
    str_release(&record);
}
