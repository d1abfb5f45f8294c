/* The document made runnable: the list of passes, in order.
 *
 * The result borrows tensor bytes from the document and must not outlive it. Everything done here happens in the copy:
 * the document is what export writes. */
#include <stdlib.h>
#include <string.h>

#include "passes/passes.h"

/* Debug builds check the invariants between passes. */
static Status checked(Graph *graph, const char *pass, Error *err)
{
#ifndef NDEBUG
    Status status = graph_check(graph, err);
    if (status != STATUS_OK)
        error_prefix(err, "after %s", pass);
    return status;
#else
    (void)graph;
    (void)pass;
    (void)err;
    return STATUS_OK;
#endif
}

/* ---- the copy ------------------------------------------------------------------------------------------------ */

static void remember_origins(Graph *graph)
{
    for (size_t i = 0; i < graph->initializer_count; i++)
        graph->initializers[i]->origin = graph->initializers[i]->constant;
    for (Node *node = graph->first; node != NULL; node = node->next) {
        Tensor *tensor = node_is(node, "Constant") ? node_tensor(node, "value") : NULL;
        if (tensor != NULL && node_output(node, 0) != NULL)
            node->outputs[0]->origin = tensor;
    }
}

static Model *copy_document(const Model *document)
{
    Model *model = model_new(document->ops);
    model->path = document->path == NULL ? NULL : arena_strdup(&model->arena, document->path);
    model->ir_version = document->ir_version;
    for (size_t i = 0; i < document->opset_count; i++)
        model_set_opset(model, document->opsets[i].domain, document->opsets[i].version);
    model->functions = document->functions; /* read only, until pass_inline is through */
    model->function_count = document->function_count;
    model->graph = graph_clone(model, document->graph);
    return model;
}

/* An initializer that is listed as an input too is overridable by the standard; while we run, it is what the file says.
 */
static void drop_overridable_inputs(Graph *graph)
{
    for (size_t i = graph->input_count; i-- > 0;)
        if (graph->inputs[i]->constant != NULL)
            graph_remove_input(graph, graph->inputs[i]);
}

bool node_is_zipmap(const Node *node)
{
    return node != NULL && strcmp(node->op_type, "ZipMap") == 0 && strcmp(node->domain, "ai.onnx.ml") == 0;
}

/* Where the model ends in ZipMap, the scores themselves stand under its name. */
static void scores_for_maps(Graph *graph)
{
    for (Node *node = graph->first; node != NULL; node = node->next) {
        if (!node_is_zipmap(node) || node->input_count != 1 || node->inputs[0] == NULL || node->output_count != 1 ||
            node->outputs[0] == NULL || node->outputs[0]->use_count > 0)
            continue;
        node_remove_attr(node, "classlabels_int64s");
        node_remove_attr(node, "classlabels_strings");
        node_set_op(node, "", "Identity", OPSET_NEWEST);
        node->outputs[0]->type = node->inputs[0]->type;
    }
}

static Status to_newest_form(Model *model, Error *err)
{
    TRY(pass_inline(model, err));
    scores_for_maps(model->graph);
    remember_origins(model->graph);
    drop_overridable_inputs(model->graph);
    TRY(checked(model->graph, "inline", err));
    TRY(pass_upgrade(model->graph, err));
    model_set_opset(model, "", OPSET_NEWEST);
    return checked(model->graph, "upgrade", err);
}

Status working_copy(Model *document, Model **copy, Error *err)
{
    Model *model = copy_document(document);
    Status status = to_newest_form(model, err);
    if (status != STATUS_OK) {
        model_free(model);
        model = NULL;
    }
    *copy = model;
    return status;
}

/* ---- narrow and double floats ------------------------------------------------------------------------------------ */

static bool is_promoted(DType dtype)
{
    return dtype == DTYPE_F16 || dtype == DTYPE_BF16 || dtype == DTYPE_F64;
}

static Status promote_tensor(Model *model, Tensor **tensor, Error *err)
{
    if (*tensor == NULL || !is_promoted((*tensor)->dtype))
        return STATUS_OK;
    Arena scratch;
    arena_init(&scratch);
    Array *array, *floats;
    Status status = array_from_tensor(&scratch, *tensor, &array, err);
    if (status == STATUS_OK)
        status = array_convert(&scratch, array, DTYPE_F32, &floats, err);
    if (status == STATUS_OK)
        *tensor = tensor_from_array(&model->arena, (*tensor)->name, floats);
    arena_release(&scratch);
    return status;
}

static Status promote_node(Model *model, Node *node, Error *err)
{
    static const char *const dtype_attrs[] = {"to", "dtype", "output_dtype"};
    for (size_t i = 0; i < 3; i++)
        if (is_promoted((DType)node_int(node, dtype_attrs[i], 0)))
            node_set_int(node, dtype_attrs[i], DTYPE_F32);
    for (size_t i = 0; i < node->attr_count; i++) {
        const Attr *attr = node->attrs[i];
        if (attr->type != ATTR_TENSOR || attr->t == NULL || !is_promoted(attr->t->dtype))
            continue;
        Tensor *tensor = attr->t;
        TRY(promote_tensor(model, &tensor, err));
        node_set_tensor(node, attr->name, tensor);
    }
    return STATUS_OK;
}

/* does: everything computes in f32. Origins keep the file's type, and training writes back in it. */
static Status promote_floats(Graph *graph, Error *err)
{
    for (size_t i = 0; i < graph->initializer_count; i++)
        TRY(promote_tensor(graph->model, &graph->initializers[i]->constant, err));
    for (size_t i = 0; i < graph->input_count; i++)
        if (is_promoted(graph->inputs[i]->type.dtype))
            graph->inputs[i]->type.dtype = DTYPE_F32;
    for (Node *node = graph->first; node != NULL; node = node->next)
        TRY(promote_node(graph->model, node, err));
    return STATUS_OK;
}

/* ---- parameters -------------------------------------------------------------------------------------------------- */

static void become_parameter(Value *value, int index)
{
    value->role = ROLE_PARAMETER;
    value->parameter = index;
}

/* A Constant node that holds a parameter becomes an initializer. */
static Value *constant_to_initializer(Node *node)
{
    Graph *graph = node->graph;
    Value *old = node->outputs[0];
    Tensor *tensor = arena_copy(&graph->model->arena, node_tensor(node, "value"), sizeof *tensor);
    tensor->name = graph_unique_name(graph, old->name);
    Value *value = graph_add_initializer(graph, tensor);
    type_set(&value->type, tensor->dtype, tensor->rank, tensor->dims);
    value->origin = old->origin;
    value_replace_uses(old, value);
    node_remove(node);
    return value;
}

/* Where the document's tensors are in the working graph: sorted by tensor, initializers before Constant nodes. */
typedef struct OriginEntry {
    const Tensor *origin;
    size_t position;
    Value *value;
} OriginEntry;

typedef struct OriginIndex {
    OriginEntry *entries;
    size_t count, capacity;
} OriginIndex;

static int compare_origins(const void *a, const void *b)
{
    const OriginEntry *x = a, *y = b;
    if (x->origin != y->origin)
        return (uintptr_t)x->origin < (uintptr_t)y->origin ? -1 : 1;
    return (x->position > y->position) - (x->position < y->position);
}

static void origin_add(Arena *arena, OriginIndex *index, Value *value)
{
    if (value == NULL || value->origin == NULL)
        return;
    index->entries = arena_grow(arena, index->entries, index->count, &index->capacity, sizeof *index->entries);
    index->entries[index->count] = (OriginEntry){value->origin, index->count, value};
    index->count++;
}

static void origins_find(Graph *graph, Arena *arena, OriginIndex *index)
{
    for (size_t i = 0; i < graph->initializer_count; i++)
        origin_add(arena, index, graph->initializers[i]);
    for (Node *node = graph->first; node != NULL; node = node->next)
        if (node_is(node, "Constant"))
            origin_add(arena, index, node_output(node, 0));
    if (index->count > 0)
        qsort(index->entries, index->count, sizeof *index->entries, compare_origins);
}

static Value *value_of_origin(OriginIndex *index, const Tensor *origin)
{
    size_t low = 0, high = index->count; /* the first entry of `origin` */
    while (low < high) {
        size_t middle = (low + high) / 2;
        if ((uintptr_t)index->entries[middle].origin < (uintptr_t)origin)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == index->count || index->entries[low].origin != origin)
        return NULL;
    OriginEntry *entry = &index->entries[low];
    if (entry->value->producer != NULL)
        entry->value = constant_to_initializer(entry->value->producer);
    return entry->value;
}

static bool means(const ParamInfo *info, const Use *use)
{
    for (size_t i = 0; i < info->use_count; i++)
        if (info->uses[i].node == use->node->document_node && info->uses[i].index == use->index)
            return true;
    return false;
}

/* A second parameter that shares its initializer with an unrelated one gets a value of its own. */
static Value *split_off(Graph *graph, Value *shared, const ParamInfo *info)
{
    Tensor *tensor = arena_copy(&graph->model->arena, shared->constant, sizeof *tensor);
    tensor->name = graph_unique_name(graph, info->name);
    Value *own = graph_add_initializer(graph, tensor);
    own->type = shared->type;
    own->origin = shared->origin;
    for (size_t i = shared->use_count; i-- > 0;) {
        Use use = shared->uses[i];
        if (means(info, &use))
            node_set_input(use.node, use.index, own);
    }
    return own;
}

static Value *with_dims(Builder *b, Value *value, const int64_t *dims, int rank)
{
    return build2(b, "Reshape", value, build_ints(b, dims, (size_t)rank));
}

/* [.., length] of a parameter's numbers from `start` on. */
static Value *repeated(Builder *b, Value *parameter, const CopyLayout *layout, const Type *to)
{
    int64_t count = tensor_count(parameter->constant), end = layout->start + layout->length;
    Value *row = parameter;
    if (parameter->type.rank != 1)
        row = with_dims(b, row, &count, 1);
    if (layout->length < count)
        row = build3(b, "Slice", row, build_ints(b, &layout->start, 1), build_ints(b, &end, 1));
    return build2(b, "Expand", row, build_ints(b, to->dims, (size_t)to->rank));
}

static Value *lengths(Builder *b, Value *parameter, const CopyLayout *layout, const Type *to)
{
    int64_t axes[RANK_MAX];
    size_t count = 0;
    for (int i = 0; i < parameter->type.rank; i++)
        if ((layout->reduced >> i & 1) != 0)
            axes[count++] = i;
    Value *value = build2(b, layout->squared ? "ReduceSumSquare" : "ReduceL2", parameter, build_ints(b, axes, count));
    return with_dims(b, value, to->dims, to->rank);
}

/* An exact copy is read from the parameter it copies: see CopyLayout. */
static Status tie(Graph *graph, Value *copy, Value *parameter, const CopyLayout *layout, Error *err)
{
    Builder b = builder_at(graph, graph->first, "tie", err);
    const Type *from = &parameter->type, *to = &copy->type;
    Value *value = parameter;
    int64_t dims[COPY_RANK_MAX];
    int rank = copy_layout_dims(parameter->constant, dims);
    if (layout->squared && layout->reduced == 0) {
        value = build2(&b, "Mul", parameter, parameter);
    } else if (copy_is_computed(layout)) {
        value = layout->length > 0 ? repeated(&b, parameter, layout, to) : lengths(&b, parameter, layout, to);
        TRY(b.status);
        value_replace_uses(copy, value);
        return STATUS_OK;
    }
    if (layout->rank > 0 && rank < from->rank)
        value = with_dims(&b, value, dims, rank);
    if (layout->rank > 0) {
        int64_t perm[RANK_MAX];
        for (int i = 0; i < layout->rank; i++)
            perm[i] = layout->perm[i];
        Node *node = build_node(&b, "", "Transpose", &value, 1, 1);
        if (node != NULL)
            node_set_ints(node, "perm", perm, (size_t)layout->rank);
        value = build_finish(&b, node);
    }
    bool fits = layout->rank > 0 ? rank == to->rank
                                 : from->rank == to->rank &&
                                       memcmp(from->dims, to->dims, (size_t)to->rank * sizeof to->dims[0]) == 0;
    if (!fits)
        value = with_dims(&b, value, to->dims, to->rank);
    TRY(b.status);
    value_replace_uses(copy, value);
    return STATUS_OK;
}

static Status mark_parameters(Graph *graph, const ParamList *list, Error *err)
{
    Arena *arena = &graph->model->arena;
    Value **values = arena_array(arena, Value *, list->count + 1);
    OriginIndex index = {NULL, 0, 0};
    origins_find(graph, arena, &index);
    for (size_t i = 0; i < list->count; i++) {
        const ParamInfo *info = &list->items[i];
        values[i] = value_of_origin(&index, info->origin);
        if (values[i] == NULL)
            return fail(err, STATUS_REJECTED, "parameter '%s' is not in the graph any more", info->name);
        if (info->untied)
            values[i] = split_off(graph, values[i], info);
    }
    for (size_t i = 0; i < list->count; i++) {
        const ParamInfo *info = &list->items[i];
        if (info->tied_to >= 0)
            TRY(tie(graph, values[i], values[info->tied_to], &info->layout, err));
        else if (info->trainable)
            become_parameter(values[i], (int)i);
    }
    return STATUS_OK;
}

/* ---- BatchNorm and Dropout --------------------------------------------------------------------------------------- */

static bool is_parameter(const Value *value)
{
    return value != NULL && value->role == ROLE_PARAMETER;
}

static void drop_extra_outputs(Node *node)
{
    for (int i = 1; i < node->output_count; i++)
        if (node->outputs[i] != NULL && i <= 2 && node_input(node, i + 2) != NULL)
            value_replace_uses(node->outputs[i], node->inputs[i + 2]); /* the statistics as they are */
    for (int i = node->output_count - 1; i >= 1; i--)
        if (node->outputs[i] != NULL)
            node_set_output(node, i, NULL);
    node->output_count = 1;
}

/* By a node, or by a loss. */
static bool statistics_are_read(const Node *node, const WorkingOptions *options)
{
    for (int i = 1; i < node->output_count; i++) {
        const Value *value = node->outputs[i];
        bool read = value != NULL && value->use_count > 0;
        for (size_t k = 0; k < options->loss_count && value != NULL; k++)
            read = read || (options->losses[k].output < node->graph->output_count &&
                            node->graph->outputs[options->losses[k].output] == value);
        if (read)
            return true;
    }
    return false;
}

/* Live: normalises with the batch and, where it is trained, moves the running statistics. A frozen one runs on its
 * statistics and keeps them. */
static void settle_batchnorm(Node *node, const WorkingOptions *options)
{
    bool trained = is_parameter(node_input(node, 1)) || is_parameter(node_input(node, 2));
    bool live = node_int(node, "training_mode", 0) != 0 &&
                (options->live || (options->training && trained && !options->running_statistics));
    if (options->live && live && statistics_are_read(node, options))
        return; /* as written: its row says that there is no gradient through them */
    drop_extra_outputs(node);
    if (!live) {
        node_remove_attr(node, "training_mode");
        return;
    }
    bool moves = options->training && trained;
    for (int i = 3; i <= 4 && moves; i++)
        node->inputs[i]->role = ROLE_STATE;
    float momentum = moves ? node_float(node, "momentum", 0.9f) : 1, epsilon = node_float(node, "epsilon", 1e-5f);
    node_remove_attr(node, "training_mode");
    node_remove_attr(node, "spatial");
    node_set_op(node, DOMAIN_INTERNAL, "BatchNormTrain", 0);
    node_set_float(node, "momentum", momentum);
    node_set_float(node, "epsilon", epsilon);
    node_add_output(node, NULL); /* mean and inverse deviation of the batch, for the gradient */
    node_add_output(node, NULL);
}

/* Does any trainable parameter lie before this node? Node.mark of earlier nodes is settled. */
static bool after_parameter(const Node *node)
{
    for (int i = 0; i < node->input_count; i++) {
        const Value *value = node->inputs[i];
        if (value != NULL && (is_parameter(value) || (value->producer != NULL && value->producer->mark == 1)))
            return true;
    }
    return false;
}

static void settle_modes(Graph *graph, const WorkingOptions *options)
{
    for (Node *node = graph->first, *next; node != NULL; node = next) {
        next = node->next;
        node->mark = after_parameter(node);
        if (node_is(node, "BatchNormalization") && node->input_count == 5)
            settle_batchnorm(node, options);
        bool asleep = node_is(node, "Dropout") && !options->live && (!options->training || !node->mark);
        if (asleep && (node_output(node, 1) == NULL || node->outputs[1]->use_count == 0)) {
            if (node->input_count > 2)
                node_set_input(node, 2, NULL); /* inference form; pass_clean removes it */
        }
    }
}

/* ---- the list ---------------------------------------------------------------------------------------------------- */

static Status append_gradients(Graph *graph, const WorkingOptions *options, Value *loss, Error *err)
{
    size_t count = 0;
    Value **wrt = arena_array(&graph->model->arena, Value *, graph->initializer_count + graph->input_count);
    for (size_t i = 0; i < graph->initializer_count; i++)
        if (graph->initializers[i]->role == ROLE_PARAMETER)
            wrt[count++] = graph->initializers[i];
    for (size_t i = 0; options->input_gradients != NULL && options->input_gradients[i] != NULL; i++) {
        Value *input = graph_find(graph, options->input_gradients[i]);
        if (input == NULL || !input->is_input)
            return fail(err, STATUS_USAGE, "the model has no input '%s' to differentiate", options->input_gradients[i]);
        wrt[count++] = input;
    }
    return pass_autodiff(graph, loss, wrt, count, err);
}

Status working_loss(Graph *graph, const WorkingOptions *options, Error *err)
{
    Value *loss = NULL;
    TRY(pass_loss(graph, options->losses, options->loss_count, &loss, err));
    TRY(checked(graph, "loss", err));
    if (options->gradients) {
        TRY(append_gradients(graph, options, loss, err));
        TRY(pass_clean(graph, err));
        TRY(checked(graph, "autodiff", err));
    }
    if (!options->no_fuse) {
        TRY(pass_fuse_conv(graph, true, err));
        TRY(pass_fuse_elementwise(graph, err));
    }
    return checked(graph, "last fusions", err);
}

static Status run_passes(Model *model, const WorkingOptions *options, Error *err)
{
    Graph *graph = model->graph;
    TRY(to_newest_form(model, err));
    if (!options->as_written)
        TRY(promote_floats(graph, err));
    if (options->params != NULL)
        TRY(mark_parameters(graph, options->params, err));
    if (!options->as_written)
        settle_modes(graph, options);
    TRY(checked(graph, "parameters", err));
    TRY(pass_infer(graph, options->bindings, options->binding_count, err));
    TRY(pass_gradient(graph, err));
    if (!options->no_expand)
        TRY(pass_unroll(graph, err));
    TRY(pass_clean(graph, err));
    TRY(checked(graph, "infer", err));
    if (!options->no_expand)
        TRY(pass_expand(graph, err));
    TRY(checked(graph, "expand", err));
    if (!options->no_fuse) {
        TRY(pass_fuse(graph, err));
        TRY(pass_fuse_transpose(graph, err));
        TRY(pass_fuse_matmul(graph, err));
    }
    TRY(checked(graph, "fuse", err));
    if (options->loss_count > 0)
        return working_loss(graph, options, err);
    if (!options->no_fuse)
        TRY(pass_fuse_conv(graph, !options->for_split, err));
    if (!options->no_fuse && !options->for_split)
        TRY(pass_fuse_elementwise(graph, err));
    return checked(graph, "last fusions", err);
}

Status working_build(Model *document, const WorkingOptions *options, Model **working, Error *err)
{
    Model *model = copy_document(document);
    Status status = run_passes(model, options, err);
    if (status != STATUS_OK) {
        model_free(model);
        model = NULL;
    }
    *working = model;
    return status;
}

/* ---- the frozen part --------------------------------------------------------------------------------------------- */

/* Node.mark: 1 after a trainable parameter, 2 before any but after an input, 0 constants only. */
static void mark_sides(Graph *graph)
{
    for (Node *node = graph->first; node != NULL; node = node->next) {
        node->mark = after_parameter(node) ? 1 : 0;
        for (int i = 0; i < node->input_count && node->mark == 0; i++) {
            const Value *value = node->inputs[i];
            if (value != NULL && (value->is_input || (value->producer != NULL && value->producer->mark == 2)))
                node->mark = 2;
        }
    }
}

static bool crosses(const Value *value)
{
    if (value->producer == NULL ? !value->is_input : value->producer->mark != 2)
        return false;
    if (value->is_output)
        return true;
    for (size_t i = 0; i < value->use_count; i++)
        if (value->uses[i].node->mark == 1)
            return true;
    return false;
}

/* A copy of `working` with the sides marked; border values listed in order of the graph. */
static Model *copy_marked(const Model *working, Value ***border, size_t *count)
{
    Model *model = copy_document(working);
    Graph *graph = model->graph;
    mark_sides(graph);
    *border = arena_array(&model->arena, Value *, graph->values.count + 1);
    *count = 0;
    for (size_t i = 0; i < graph->input_count; i++)
        if (crosses(graph->inputs[i]))
            (*border)[(*count)++] = graph->inputs[i];
    for (Node *node = graph->first; node != NULL; node = node->next)
        for (int i = 0; i < node->output_count; i++)
            if (node->outputs[i] != NULL && crosses(node->outputs[i]))
                (*border)[(*count)++] = node->outputs[i];
    return model;
}

static Status make_prefix(const Model *working, Model **out, Error *err)
{
    Value **border;
    size_t count;
    Model *model = copy_marked(working, &border, &count);
    Graph *graph = model->graph;
    graph_clear_outputs(graph);
    for (size_t i = 0; i < count; i++)
        graph_add_output(graph, border[i]);
    for (Node *node = graph->last, *previous; node != NULL; node = previous) {
        previous = node->previous;
        if (node->mark == 1) /* some have an effect, which would keep them */
            node_remove(node);
    }
    for (size_t i = 0; i < graph->initializer_count; i++)
        if (graph->initializers[i]->role == ROLE_PARAMETER)
            graph->initializers[i]->role = ROLE_CONSTANT;
    TRY(pass_clean(graph, err));
    *out = model;
    return STATUS_OK;
}

static Status make_suffix(const Model *working, Model **out, Error *err)
{
    Value **border;
    size_t count;
    Model *model = copy_marked(working, &border, &count);
    Graph *graph = model->graph;
    while (graph->input_count > 0)
        graph_remove_input(graph, graph->inputs[graph->input_count - 1]);
    for (size_t i = 0; i < count; i++) {
        Value *value = border[i];
        if (value->producer != NULL)
            node_set_output(value->producer, value->producer_index, NULL);
        graph_add_input(graph, value);
        value->role = ROLE_INPUT;
    }
    TRY(pass_clean(graph, err));
    *out = model;
    return STATUS_OK;
}

Status working_split(const Model *working, Model **prefix, Model **suffix, Error *err)
{
    *prefix = *suffix = NULL;
    Status status = make_prefix(working, prefix, err);
    if (status == STATUS_OK)
        status = make_suffix(working, suffix, err);
    if (status != STATUS_OK) {
        model_free(*prefix);
        model_free(*suffix);
        *prefix = *suffix = NULL;
    }
    return status;
}
