/* After training: metadata, the file written and read back, the closing table and result.json. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/tune.h"

/* ---- the file, the table ----------------------------------------------------------------------------------------- */

static void cell_number(Table *table, double value, double scale, const char *unit)
{
    if (isfinite(value))
        table_cell(table, STYLE_PLAIN, "%.*f%s", scale > 1 ? 1 : 4, value * scale, unit);
    else
        table_cell(table, STYLE_DIM, "-");
}

/* Two figures a part, by task. */
static const char *const figures[][2] = {{"accuracy", "AUC"}, {"mean AUC", "macro F1"}, {"RMSE", "R2"}, {"", ""}};

static void show_scores(Table *table, TaskKind task, const Scores *scores)
{
    if (task == TASK_CLASSES)
        cell_number(table, scores->accuracy, 100, " %");
    else
        cell_number(table, task == TASK_LABELS ? scores->auc : scores->rmse, 1, "");
    cell_number(table, task == TASK_CLASSES ? scores->auc : task == TASK_LABELS ? scores->f1 : scores->r2, 1, "");
}

static void show_arm(Table *table, const Tune *tune, const Arm *arm)
{
    if (!arm->measured)
        return;
    bool chosen = tune->chosen == arm;
    table_cell(table, chosen ? STYLE_BOLD : STYLE_PLAIN, "%s%s", arm->name, chosen ? " *" : "");
    table_cell(table, STYLE_PLAIN, "%s", human_count((int64_t)arm->trainable).text);
    show_scores(table, tune->task, &arm->val);
    show_scores(table, tune->task, &arm->test);
    table_cell(table, STYLE_PLAIN, "%s", human_seconds(arm->seconds).text);
}

static void show_table(const Tune *tune)
{
    if (tune->fields->json || tune->task == TASK_OTHER)
        return;
    Table table;
    table_init(&table, "lrrrrrr");
    table_cell(&table, STYLE_BOLD, " ");
    table_cell(&table, STYLE_BOLD, "trainable");
    for (int part = 0; part < 2; part++)
        for (int k = 0; k < 2; k++)
            table_cell(&table, STYLE_BOLD, "%s %s", part == 0 ? "val" : "test", figures[tune->task][k]);
    table_cell(&table, STYLE_BOLD, "time");
    show_arm(&table, tune, &tune->probe);
    show_arm(&table, tune, &tune->tuned);
    table_print(&table, stdout, 0);
    table_release(&table);
}

static void put_scores(Json *json, const char *part, const Scores *scores)
{
    const struct {
        const char *name;
        double value;
    } all[] = {{"loss", scores->loss}, {"accuracy", scores->accuracy}, {"auc", scores->auc},
               {"f1", scores->f1},     {"rmse", scores->rmse},         {"r2", scores->r2}};
    char key[32];
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        snprintf(key, sizeof key, "%s_%s", part, all[i].name);
        json_put_real(json, key, all[i].value);
    }
}

static void put_targets(Json *json, const char *key, const Arm *arm, size_t part, const char *const *names,
                        size_t count)
{
    if (!arm->has_targets[part])
        return;
    json_put_open(json, key, '[');
    for (size_t i = 0; i < count; i++) {
        const TargetScore *score = &arm->targets[part][i];
        json_open(json, '{');
        json_put_string(json, "target", names[i]);
        json_put_real(json, "loss", score->loss);
        json_put_real(json, "accuracy", score->accuracy);
        json_put_real(json, "mean_iou", score->mean_iou);
        json_put_real(json, "mean_absolute_error", score->absolute_error);
        json_put_real(json, "mean_squared_error", score->squared_error);
        json_close(json, '}');
    }
    json_close(json, ']');
}

static void put_arm(Json *json, const Arm *arm, const char *const *names, size_t count)
{
    if (!arm->measured)
        return;
    json_put_open(json, arm->name, '{');
    json_put_int(json, "trainable", (int64_t)arm->trainable);
    json_put_real(json, "seconds", arm->seconds);
    put_scores(json, "val", &arm->val);
    put_scores(json, "test", &arm->test);
    put_targets(json, "val_targets", arm, 0, names, count);
    put_targets(json, "test_targets", arm, 1, names, count);
    json_close(json, '}');
}

static Status keep_summary(Tune *tune, Error *err)
{
    Json json;
    json_begin_line(&json, "regraft.tune/1");
    json_put_string(&json, "output", tune->fields->output);
    json_put_string(&json, "chosen", tune->chosen->name);
    json_put_string(&json, "preprocessing", tune->preset);
    put_arm(&json, &tune->probe, tune->target_names, tune->loss_count);
    put_arm(&json, &tune->tuned, tune->target_names, tune->loss_count);
    if (tune->tuned.measured)
        json_put_bill(&json, &tune->progress.bill);
    json_put_int(&json, "peak_resident", (int64_t)process_peak());
    json_close(&json, '}');
    str_append(&json.out, "\n");
    if (tune->fields->json)
        fputs(json.out.text, stdout);
    Status status = progress_file(&tune->progress, "result.json", json.out.text, err);
    str_release(&json.out);
    return status;
}

static void write_metadata(Tune *tune)
{
    static const char *const recipes[] = {"auto", "plain", "probe"};
    Model *document = tune->document;
    if (tune->has_picture) {
        Str text;
        str_init(&text);
        picture_spec_print(&tune->picture, &text);
        model_set_metadata(document, "regraft.preprocess", text.text);
        str_release(&text);
    }
    model_set_metadata(document, "regraft.recipe", recipes[tune->fields->recipe]);
    model_set_metadata(document, "regraft.seed", arena_printf(&document->arena, "%lld", (long long)tune->fields->seed));
    model_set_metadata(document, "regraft.base_sha256", tune->base_sha256);
}

Status tune_save(Tune *tune, Error *err)
{
    document_to_inference(tune->document);
    write_metadata(tune);
    TRY(document_save(tune->document, tune->fields->output, tune->fields->strip_doc, err));
    if (!tune->fields->no_verify)
        TRY(document_verify(tune->document, NULL, &tune->witness, tune->fields->strip_doc, tune->fields->output, err));
    TRY(progress_resume(&tune->progress, 0, err)); /* when there was nothing to train */
    TRY(keep_summary(tune, err));
    show_table(tune);
    if (!tune->fields->json)
        printf("wrote %s (%s)\n", tune->fields->output, tune->chosen->name);
    return print_finish(err);
}

void tune_release(Tune *tune)
{
    progress_close(&tune->progress);
    witness_release(&tune->witness);
    for (size_t p = 0; p < 3; p++)
        lengths_release(&tune->lengths[p]);
    tasks_release(tune);
    data_close(&tune->data);
    free(tune->wanted);
    model_free(tune->document);
}
