/* Running statistics of a training-mode export, as they were before the export.
 *
 * An exporter that traces a model in training mode runs it once on the example input, and that run moves every
 * BatchNorm's running mean and variance: file = m old + (1 - m) batch, where PyTorch takes the unbiased variance N / (N
 * - 1) var. Who still has the example input can take that back: one training pass over it gives `batch` (it does not
 * depend on the running statistics), and old = (file - (1 - m) batch) / m. */
#include <stdlib.h>
#include <string.h>

#include "runtime/plan.h"
#include "runtime/runtime.h"

static const Array *find_array(const char *name, const char *const *names, const Array *const *arrays, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(names[i], name) == 0)
            return arrays[i];
    return NULL;
}

static Status feed(const Model *working, Plan *plan, const char *const *names, const Array *const *arrays, size_t count,
                   Error *err)
{
    Arena arena;
    arena_init(&arena);
    Status status = STATUS_OK;
    const Graph *graph = working->graph;
    for (size_t i = 0; i < graph->input_count && status == STATUS_OK; i++) {
        Array *converted;
        status = array_convert(&arena, find_array(graph->inputs[i]->name, names, arrays, count),
                               graph->inputs[i]->type.dtype, &converted, err);
        if (status == STATUS_OK && plan_input(plan, i) != NULL)
            memcpy(plan_input(plan, i), converted->data, (size_t)converted->count * dtype_size(converted->dtype));
    }
    arena_release(&arena);
    return status;
}

/* `after` is keep file + (1 - m) batch as our own pass leaves it, where keep is m, or m to the number of calls when a
 * module is called several times: then `batch` is what all calls add up to. */
static Status take_back(Model *document, Tensor *origin, const float *after, double keep, double unbias, Error *err)
{
    if (origin->dtype != DTYPE_F32)
        return fail(err, STATUS_UNSUPPORTED, "%s: running statistics in %s", origin->name, dtype_name(origin->dtype));
    float *old = arena_alloc(&document->arena, origin->bytes);
    for (int64_t i = 0; i < tensor_count(origin); i++) {
        double file = tensor_f64_at(origin, i); /* a mapped file aligns nothing */
        double added = ((double)after[i] - keep * file) * unbias;
        old[i] = (float)((file - added) / keep);
    }
    origin->data = old;
    return STATUS_OK;
}

static bool moves_statistics(const Node *node)
{
    return strncmp(node->op_type, "BatchNormTrain", 14) == 0 && node->input_count >= 5 &&
           (node->op->traits & OP_STATE) != 0;
}

static double samples_of(const Node *node)
{
    const Type *x = &node->inputs[0]->type;
    return (double)type_count(x) / (double)x->dims[1];
}

/* What the statistics keep of themselves over all calls of the module that `node` is the first call of; 0: it is a
 * later call. */
static Status kept_share(const Graph *graph, const Node *node, double *keep, Error *err)
{
    *keep = 1;
    for (const Node *other = graph->first; other != NULL; other = other->next) {
        if (!moves_statistics(other) || other->inputs[3]->origin != node->inputs[3]->origin)
            continue;
        if (*keep == 1 && other != node) {
            *keep = 0;
            return STATUS_OK;
        }
        if (samples_of(other) != samples_of(node))
            return fail(
                err, STATUS_UNSUPPORTED,
                "%s: called with %.0f and with %.0f samples a channel; what tracing did to its statistics cannot "
                "be taken back",
                node_text(node), samples_of(node), samples_of(other));
        *keep *= (double)node_float(other, "momentum", 0.9f);
    }
    return STATUS_OK;
}

static Status take_back_all(Model *document, const Model *working, const ParamStore *store, size_t *moved, Error *err)
{
    for (const Node *node = working->graph->first; node != NULL; node = node->next) {
        double keep;
        if (!moves_statistics(node))
            continue;
        TRY(kept_share(working->graph, node, &keep, err));
        double n = samples_of(node);
        for (int i = 3; i <= 4 && keep > 0 && keep < 1; i++) {
            Tensor *origin = node->inputs[i]->origin;
            for (size_t s = 0; s < store->state_count; s++)
                if (store->state_origins[s] == origin)
                    TRY(take_back(document, origin, store->state_data[s], keep, i == 4 && n > 1 ? n / (n - 1) : 1,
                                  err));
        }
        ++*moved;
    }
    return STATUS_OK;
}

Status statistics_untrace(Model *document, const ParamList *params, const char *const *names,
                          const Array *const *arrays, size_t count, size_t *moved, Error *err)
{
    Binding bindings[16];
    size_t bound = 0;
    *moved = 0;
    for (size_t i = 0; i < document->graph->input_count && bound < 16; i++) {
        const Value *input = document->graph->inputs[i];
        const Array *array = find_array(input->name, names, arrays, count);
        if (input->constant != NULL)
            continue;
        if (array == NULL)
            return fail(err, STATUS_REJECTED, "the example has no array '%s'", input->name);
        bindings[bound] = (Binding){.input = input->name, .rank = array->rank};
        memcpy(bindings[bound++].dims, array->dims, (size_t)array->rank * sizeof array->dims[0]);
    }
    WorkingOptions options = {
        .bindings = bindings, .binding_count = bound, .training = true, .params = params, .no_fuse = true};
    PlanOptions plan_options = {.training = true};
    Model *working = NULL;
    ParamStore *store = NULL;
    Plan *plan = NULL;
    Status status = working_build(document, &options, &working, err);
    if (status == STATUS_OK)
        status = params_new(params, &store, err);
    if (status == STATUS_OK)
        status = plan_build(working, store, &plan_options, &plan, err);
    if (status == STATUS_OK)
        status = feed(working, plan, names, arrays, count, err);
    if (status == STATUS_OK)
        status = plan_run(plan, 0, 0, false, err);
    if (status == STATUS_OK)
        status = take_back_all(document, working, store, moved, err);
    plan_free(plan);
    params_free(store);
    model_free(working);
    return status;
}
