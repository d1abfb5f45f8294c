/* What the document itself tells: forms of BatchNorm and Dropout, ties, folded tables, preprocessing, fixed batches.
 * Every oddity here is one that changes results silently. */
#include "cli/check.h"
#include "onnx/op.h"

/* ---- parameters ---------------------------------------------------------------------------------------- */

static const char *tie_text(const CopyLayout *layout)
{
    if (layout->reduced != 0)
        return layout->squared ? "the squared length of rows of" : "the length of rows of";
    if (layout->squared)
        return "the square of";
    if (layout->length > 0)
        return "an exact repeated copy of";
    return layout->rank > 0 ? "an exact transposed copy of" : "an exact copy of";
}

static void look_at_parameters(Check *check)
{
    size_t folded = 0, untied = 0;
    const char *first_folded = NULL, *first_untied = NULL;
    for (size_t i = 0; i < check->params.count; i++) {
        const ParamInfo *info = &check->params.items[i];
        if (info->tied_to >= 0)
            check_add(check, CODE_TIED, NULL, "'%s' is %s '%s': both are kept so", info->name, tie_text(&info->layout),
                      check->params.items[info->tied_to].name);
        first_folded = info->looks_folded && folded == 0 ? info->name : first_folded;
        folded += info->looks_folded;
        first_untied = info->untied && untied == 0 ? info->name : first_untied;
        untied += info->untied;
    }
    if (folded > 0)
        check_add(
            check, CODE_FOLDED_TABLE, NULL,
            "tables that the exporter computed: %zu ('%s'%s); they may fix a length, and are not trained unless named",
            folded, first_folded, folded > 1 ? ", ..." : "");
    if (untied > 0)
        check_add(check, CODE_UNTIED, NULL,
                  "parameters that the exporter merged because their values were equal: %zu ('%s'%s); trained apart",
                  untied, first_untied, untied > 1 ? ", ..." : "");
}

static void look_at_marks(Check *check)
{
    const char *marks = model_metadata(check->document, "regraft.frozen");
    size_t count = marks != NULL && marks[0] != '\0';
    for (; count > 0 && *marks != '\0'; marks++)
        count += *marks == '\n';
    if (count > 0)
        check_add(check, CODE_FROZEN_MARKS, NULL, "parameters marked as frozen: %zu; they stay as they are", count);
}

/* ---- forms --------------------------------------------------------------------------------------------- */

static void look_at_batchnorm(Check *check)
{
    size_t count;
    BatchNormForm form = batchnorm_form(check->document, &count);
    if (form == BATCHNORM_FOLDED)
        check_add(check, CODE_BATCHNORM_FOLDED, NULL,
                  "convolutions with BatchNorm folded in: %zu; they train as plain convolutions, at lower rates",
                  count);
    if (form == BATCHNORM_TRAINING)
        check_add(check, CODE_BATCHNORM_LIVE, NULL,
                  "BatchNormalization in training form: %zu; wherever this file runs, outputs depend on the batch",
                  count);
}

/* How many numbers `value` holds, 0 unless it is an initializer or a Constant; *first is told of a single one. */
static size_t constant_count(const Value *value, double *first)
{
    const Node *node =
        value != NULL && value->producer != NULL && node_is(value->producer, "Constant") ? value->producer : NULL;
    const Tensor *tensor = value != NULL ? value->constant : NULL;
    if (tensor == NULL && node != NULL)
        tensor = node_tensor(node, "value");
    if (tensor != NULL) {
        *first = tensor_count(tensor) == 1 ? tensor_f64_at(tensor, 0) : 0;
        return (size_t)tensor_count(tensor);
    }
    size_t count = 0;
    if (node == NULL)
        return 0;
    if (node_attr(node, "value_float") != NULL) {
        *first = (double)node_float(node, "value_float", 0);
        return 1;
    }
    const float *floats = node_floats(node, "value_floats", &count);
    *first = count == 1 ? (double)floats[0] : 0;
    return count;
}

static bool constant_true(const Value *value)
{
    double first = 0;
    return constant_count(value, &first) == 1 && first > 0;
}

static double constant_number(const Value *value, double absent)
{
    double first = 0;
    return constant_count(value, &first) == 1 ? first : absent;
}

static void look_at_random(Check *check)
{
    size_t live = 0, drawing = 0;
    const Node *first = NULL, *source = NULL;
    for (const Node *node = check->document->graph->first; node != NULL; node = node->next) {
        if (node_is(node, "Dropout")) {
            bool on = constant_true(node_input(node, 2)) && constant_number(node_input(node, 1), 0.5) > 0;
            first = on && live == 0 ? node : first;
            live += on;
        } else if (node->op != NULL && (node->op->traits & OP_RANDOM) != 0) {
            source = drawing == 0 ? node : source;
            drawing++;
        }
    }
    if (live > 0)
        check_add(check, CODE_DROPOUT_LIVE, first,
                  "Dropout nodes switched on in the file: %zu; other runtimes give random outputs, here they act only "
                  "while training",
                  live);
    if (drawing > 0)
        check_add(check, CODE_RANDOM, source, "nodes that draw random numbers: %zu; outputs differ from run to run",
                  drawing);
}

/* Layers that an exporter left without a bias: dynamo drops biases that are all zero. */
static void look_at_biases(Check *check)
{
    size_t count = 0;
    const Node *first = NULL;
    for (const Node *node = check->document->graph->first; node != NULL; node = node->next) {
        bool layer = node_is(node, "Conv") || node_is(node, "Gemm");
        const Value *output = node_output(node, 0);
        if (!layer || node_input(node, 2) != NULL || output == NULL)
            continue;
        const Node *next = output->use_count == 1 ? output->uses[0].node : NULL;
        if (next != NULL && (node_is(next, "Add") || node_is(next, "BatchNormalization")))
            continue;
        first = count == 0 ? node : first;
        count++;
    }
    if (count > 0)
        check_add(check, CODE_NO_BIAS, first,
                  "layers without a bias: %zu; none is trained (exporters drop biases that are all zero)", count);
}

/* ---- inputs -------------------------------------------------------------------------------------------- */

static bool few_constants(const Value *value)
{
    double first = 0;
    const size_t count = constant_count(value, &first);
    return count >= 1 && count <= 4;
}

/* Arithmetic with one number a channel right behind a picture: the model normalises by itself. */
static void look_behind_picture(Check *check, const Value *input)
{
    const Value *value = input;
    for (int steps = 0; steps < 4 && value != NULL && value->use_count == 1; steps++) {
        const Node *node = value->uses[0].node;
        bool passes = node_is(node, "Cast") || node_is(node, "Transpose");
        bool arithmetic = node_is(node, "Sub") || node_is(node, "Div") || node_is(node, "Mul") || node_is(node, "Add");
        if (arithmetic && few_constants(node_input(node, 1 - value->uses[0].index))) {
            check_add(check, CODE_PREPROCESSING, node,
                      "the model scales its input '%s' itself: give it pictures as they are (0 to 255 or 0 to 1), not "
                      "normalised",
                      input->name);
            return;
        }
        if (!passes)
            return;
        value = node_output(node, 0);
    }
}

static void look_at_inputs(Check *check)
{
    const Graph *graph = check->document->graph;
    size_t overridable = 0;
    for (size_t i = 0; i < graph->input_count; i++) {
        const Value *input = graph->inputs[i];
        overridable += input->is_initializer;
        if (input->is_initializer || input->type.kind != TYPE_TENSOR)
            continue;
        if (input->type.rank > 0 && input->type.dims[0] > 0 && input->type.symbols[0] == NULL)
            check_add(check, CODE_FIXED_BATCH, NULL, "input '%s' has a fixed first dim of %lld", input->name,
                      (long long)input->type.dims[0]);
        if (input->type.rank == 4 || input->type.dtype == DTYPE_U8)
            look_behind_picture(check, input);
    }
    if (overridable > 0)
        check_add(check, CODE_INPUT_INITIALIZERS, NULL,
                  "initializers listed as inputs too, as IR version 3 did: %zu; taken as weights", overridable);
}

/* ---- the rest ------------------------------------------------------------------------------------------ */

static void look_at_head(Check *check)
{
    HeadList list;
    const Head *head;
    Error err = {STATUS_OK, ""};
    Status status = heads_find(check->document, &list, &err);
    if (status == STATUS_OK)
        status = heads_pick(&list, NULL, NULL, &head, &err);
    if (status != STATUS_OK)
        check_add(check, CODE_HEAD_UNCLEAR, NULL, "%s", err.message);
}

static void look_at_paths(Check *check)
{
    for (const Node *node = check->document->graph->first; node != NULL; node = node->next) {
        const char *trace = extra_metadata(&node->extra, "pkg.torch.onnx.stack_trace");
        const char *text = trace != NULL ? trace : node->extra.doc_string;
        if (text == NULL || (strstr(text, "/home/") == NULL && strstr(text, "File \"/") == NULL))
            continue;
        check_add(check, CODE_LOCAL_PATHS, node,
                  "nodes carry stack traces with paths of the exporting machine (--strip-doc drops them)");
        return;
    }
}

void check_model(Check *check)
{
    look_at_parameters(check);
    look_at_marks(check);
    look_at_batchnorm(check);
    look_at_random(check);
    look_at_biases(check);
    look_at_inputs(check);
    look_at_head(check);
    look_at_paths(check);
}
