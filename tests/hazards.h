/* What test_hazards.c and test_hazards_meaning.c share: models from text, their parameters, heads, training and
 * inference forms, a way through a file. */
#ifndef REGRAFT_TESTS_HAZARDS_H
#define REGRAFT_TESTS_HAZARDS_H

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "passes/passes.h"
#include "runtime/runtime.h"
#include "tests/test.h"

#define OPSET(n) "<ir_version: 8, opset_import: [\"\" : " #n "]> "

static inline Model *parse(const char *text)
{
    Error err = {STATUS_OK, ""};
    Model *model = NULL;
    assert_ok(model_parse(text, &builtin_ops, &model, &err), &err);
    return model;
}

static inline ParamList params_of(Model *model, bool no_tie)
{
    Error err = {STATUS_OK, ""};
    ParamList list;
    assert_ok(params_find(model, no_tie, &list, &err), &err);
    return list;
}

static inline const ParamInfo *param(const ParamList *list, const char *name)
{
    for (size_t i = 0; i < list->count; i++)
        if (strcmp(list->items[i].name, name) == 0)
            return &list->items[i];
    return NULL;
}

static inline const Head *best_head(Model *model)
{
    Error err = {STATUS_OK, ""};
    HeadList list;
    const Head *head = NULL;
    assert_ok(heads_find(model, &list, &err), &err);
    assert_ok(heads_pick(&list, NULL, NULL, &head, &err), &err);
    return head;
}

static inline Value *replace_head(Model *model, int64_t classes)
{
    Error err = {STATUS_OK, ""};
    const HeadSpec spec = {.classes = classes, .init = INIT_KAIMING_UNIFORM, .seed = 1};
    Value *logits = NULL;
    assert_ok(pass_replace_head(model, best_head(model), &spec, false, &logits, &err), &err);
    assert_ok(model_check(model, &err), &err);
    return logits;
}

/* The training graph with a squared error on output 0. */
static inline Model *training(Model *model, const Binding *bindings, size_t count, const ParamList *list)
{
    Error err = {STATUS_OK, ""};
    const LossSpec loss = {.kind = LOSS_MSE, .weight = 1, .ignore_index = -1, .target_name = "target"};
    const WorkingOptions options = {.bindings = bindings,
                                    .binding_count = count,
                                    .training = true,
                                    .params = list,
                                    .losses = &loss,
                                    .loss_count = 1,
                                    .gradients = true};
    Model *working = NULL;
    assert_ok(working_build(model, &options, &working, &err), &err);
    return working;
}

/* How many parameters it has; gradients of every one must be there. */
static inline size_t trains(Model *model, const Binding *bindings, size_t count)
{
    ParamList list = params_of(model, false);
    Model *working = training(model, bindings, count, &list);
    size_t reached = 0;
    for (size_t i = 0; i < working->graph->initializer_count; i++) {
        const Value *value = working->graph->initializers[i];
        if (value->role != ROLE_PARAMETER)
            continue;
        assert_non_null(value->gradient);
        reached++;
    }
    model_free(working);
    return reached;
}

static const Binding batch2 = {.symbol = "N", .value = 2};

static inline Model *inference(Model *model, const Binding *bindings, size_t count)
{
    Error err = {STATUS_OK, ""};
    const WorkingOptions options = {.bindings = bindings, .binding_count = count};
    Model *working = NULL;
    assert_ok(working_build(model, &options, &working, &err), &err);
    return working;
}

static inline size_t count_op(const Graph *graph, const char *op_type)
{
    size_t count = 0;
    for (const Node *node = graph->first; node != NULL; node = node->next)
        count += strcmp(node->op_type, op_type) == 0;
    return count;
}

static inline void temporary(char *folder)
{
    snprintf(folder, 64, "/tmp/regraft-hazards-XXXXXX");
    assert_non_null(mkdtemp(folder));
}

static inline void remove_folder(const char *folder)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    assert_int_equal(system(command), 0);
}

/* What a file of it holds: only there is type information kept as it was read. */
static inline Model *through_file(Model *model)
{
    char folder[64], path[96];
    temporary(folder);
    snprintf(path, sizeof path, "%s/a.onnx", folder);
    Error err = {STATUS_OK, ""};
    assert_ok(model_export(model, path, NULL, &err), &err);
    model_free(model);
    assert_ok(model_import(path, &builtin_ops, &model, &err), &err);
    remove_folder(folder);
    return model;
}

#endif
