/* Editing graphs, the checker, order, copies. */
#include "tests/test.h"

#include <string.h>

#include "onnx/onnx.h"

static Model *parse(const char *text)
{
    Error err = {STATUS_OK, ""};
    Model *model = NULL;
    assert_ok(model_parse(text, NULL, &model, &err), &err);
    return model;
}

static void assert_prints(const Graph *graph, const char *text)
{
    Str out;
    str_init(&out);
    graph_print(graph, &out);
    assert_string_equal(out.text, text);
    str_release(&out);
}

static void assert_checks(const Graph *graph)
{
    Error err = {STATUS_OK, ""};
    assert_ok(graph_check(graph, &err), &err);
}

static void assert_rejected(const Graph *graph, const char *message)
{
    Error err = {STATUS_OK, ""};
    assert_int_equal(graph_check(graph, &err), STATUS_REJECTED);
    assert_string_equal(err.message, message);
}

static Node *node_named(const Graph *graph, const char *name)
{
    for (Node *node = graph->first; node != NULL; node = node->next)
        if (strcmp(node->name, name) == 0)
            return node;
    return NULL;
}

static const char *const chain = "g (float[2] x) => (y) {\n    [A] a = Relu (x)\n    [B] y = Neg (a)\n}\n";
static const char *const with_body = "g (float[2] x, bool c) => (y) {\n"
                                     "    [A] a = Relu (x)\n"
                                     "    [I] y = If <t = t () => (u) { u = Add (a, x) }, e = e () => (a) {}> (c)\n"
                                     "}\n";

static void taken_names_get_a_fresh_one(void **state)
{
    (void)state;
    Model *model = model_new(NULL);
    Value *x = graph_add_value(model->graph, "x");
    Value *again = graph_add_value(model->graph, "x");
    assert_string_equal(x->name, "x");
    assert_string_not_equal(again->name, "x");
    assert_ptr_equal(graph_find(model->graph, again->name), again);
    Graph *body = graph_new(model, "body", model->graph);
    assert_string_not_equal(graph_unique_name(body, "x"), "x");
    assert_ptr_equal(graph_resolve(body, "x"), x);
    assert_null(graph_find(body, "x"));
    model_free(model);
}

static void nodes_go_where_they_are_told(void **state)
{
    (void)state;
    Model *model = parse(chain);
    Graph *graph = model->graph;
    Value *x = graph_find(graph, "x");
    Node *node = graph_add_node(graph, graph->last, "", "Exp", 20, "E", &x, 1, 1);
    node_set_input(graph->last, 0, node->outputs[0]);
    assert_checks(graph);
    assert_prints(graph,
                  "g (float[2] x) => (y) {\n    [A] a = Relu (x)\n    [E] E = Exp (x)\n    [B] y = Neg (E)\n}\n");
    model_free(model);
}

static void replacing_uses_moves_outputs_too(void **state)
{
    (void)state;
    Model *model = parse(with_body);
    Graph *graph = model->graph;
    value_replace_uses(graph_find(graph, "a"), graph_find(graph, "x"));
    assert_checks(graph);
    assert_int_equal(graph_find(graph, "a")->use_count, 0);
    assert_false(graph_find(graph, "a")->is_output);
    const Node *branch = node_named(graph, "I");
    assert_ptr_equal(node_graph(branch, "e")->outputs[0], graph_find(graph, "x"));
    assert_int_equal(graph_find(graph, "x")->use_count, 3);
    value_replace_uses(graph_find(graph, "y"), graph_find(graph, "x"));
    assert_ptr_equal(graph->outputs[0], graph_find(graph, "x"));
    assert_checks(graph);
    model_free(model);
}

static void removing_a_node_takes_its_uses_and_lonely_outputs_along(void **state)
{
    (void)state;
    Model *model = parse(with_body);
    Graph *graph = model->graph;
    graph_replace_output(graph, 0, graph_find(graph, "a"));
    node_remove(node_named(graph, "I"));
    assert_null(graph_find(graph, "y"));
    assert_int_equal(graph_find(graph, "a")->use_count, 0);
    assert_int_equal(graph_find(graph, "x")->use_count, 1);
    assert_int_equal(graph->node_count, 1);
    assert_checks(graph);
    model_free(model);
}

static void a_new_producer_may_take_over_the_name(void **state)
{
    (void)state;
    Model *model = parse(chain);
    Graph *graph = model->graph;
    Value *x = graph_find(graph, "x"), *a = graph_find(graph, "a");
    node_remove(node_named(graph, "A"));
    assert_rejected(graph, "Neg 'B': reads a value that nothing computes: 'a'");
    Node *node = graph_add_node(graph, graph->first, "", "Abs", 20, "C", &x, 1, 0);
    assert_ptr_equal(node_add_output(node, "a"), a);
    assert_checks(graph);
    model_free(model);
}

static void initializers_and_inputs_come_and_go(void **state)
{
    (void)state;
    Model *model = parse("g (float[2] x, float[2] w = {1, 2}) => (y) { y = Add (x, w) }");
    Graph *graph = model->graph;
    Value *w = graph_find(graph, "w");
    assert_true(w->is_input && w->is_initializer && !value_is_constant(w));
    graph_remove_input(graph, w);
    assert_true(value_is_constant(w));
    assert_checks(graph);
    node_set_input(graph->first, 1, graph_find(graph, "x"));
    graph_remove_initializer(graph, w);
    assert_null(graph_find(graph, "w"));
    graph_rename_value(graph, graph_find(graph, "x"), "image");
    assert_non_null(graph_find(graph, "image"));
    assert_checks(graph);
    model_free(model);
}

static void sorting_is_stable_and_sees_what_bodies_read(void **state)
{
    (void)state;
    Error err = {STATUS_OK, ""};
    Model *model = parse(with_body);
    Graph *graph = model->graph;
    Value *x = graph_find(graph, "x");
    graph_add_node(graph, NULL, "", "Abs", 20, "Z", &x, 1, 1);
    node_move_before(node_named(graph, "A"), NULL); /* after the If whose bodies read it */
    assert_rejected(graph, "Add (output 'u'): comes before the node that computes 'a'");
    assert_ok(graph_sort(graph, &err), &err);
    assert_checks(graph);
    assert_string_equal(graph->first->name, "A");
    assert_string_equal(graph->first->next->name, "I");
    assert_string_equal(graph->last->name, "Z");
    model_free(model);
}

static void a_cycle_is_named(void **state)
{
    (void)state;
    Error err = {STATUS_OK, ""};
    Model *model = parse("g (float[2] x) => (y) {\n [A] a = Add (x, b)\n [B] b = Neg (a)\n [C] y = Neg (b)\n}");
    assert_int_equal(graph_sort(model->graph, &err), STATUS_REJECTED);
    assert_string_equal(err.message, "the graph has a cycle through Add 'A'");
    model_free(model);
}

static void a_long_chain_sorts_backwards_without_recursion(void **state)
{
    (void)state;
    enum { LENGTH = 50000 };
    Error err = {STATUS_OK, ""};
    Model *model = model_new(NULL);
    Graph *graph = model->graph;
    Value *value = graph_add_value(graph, "x");
    graph_add_input(graph, value);
    for (int i = 0; i < LENGTH; i++)
        value = graph_add_node(graph, graph->first, "", "Relu", 20, "r", &value, 1, 1)->outputs[0];
    graph_add_output(graph, value);
    assert_ok(graph_sort(graph, &err), &err);
    assert_checks(graph);
    assert_ptr_equal(graph->last->outputs[0], value);
    model_free(model);
}

static void a_clone_is_equal_and_independent(void **state)
{
    (void)state;
    Model *model = parse(with_body), *other = model_new(NULL);
    Graph *copy = graph_clone(other, model->graph);
    assert_checks(copy);
    Str a, b;
    str_init(&a);
    str_init(&b);
    graph_print(model->graph, &a);
    graph_print(copy, &b);
    assert_string_equal(a.text, b.text);
    assert_ptr_equal(copy->first->document_node, model->graph->first);
    const Graph *body = node_graph(copy->last, "t");
    assert_ptr_equal(body->parent, copy);
    assert_ptr_equal(body->first->inputs[0], graph_find(copy, "a"));
    node_remove(copy->last);
    assert_checks(model->graph);
    str_release(&a);
    str_release(&b);
    model_free(other);
    model_free(model);
}

static void cloning_a_body_keeps_its_hold_on_outer_values(void **state)
{
    (void)state;
    Model *model = parse(with_body);
    Value *a = graph_find(model->graph, "a");
    size_t uses = a->use_count;
    Graph *body = node_graph(model->graph->last, "t"), *copy = graph_clone(model, body);
    assert_ptr_equal(copy->first->inputs[0], a);
    assert_int_equal(a->use_count, uses + 1);
    model_free(model);
}

static void the_checker_names_what_is_broken(void **state)
{
    (void)state;
    Model *model = parse(chain);
    Graph *graph = model->graph;
    Node *b = node_named(graph, "B");
    Value *x = graph_find(graph, "x"), *a = graph_find(graph, "a");
    b->inputs[0] = x;
    assert_rejected(graph, "graph 'g': value 'a' has a use that does not read it");
    b->inputs[0] = a;
    a->use_count = 0;
    assert_rejected(graph, "graph 'g': 2 inputs of nodes, but 1 uses of values");
    a->use_count = 1;
    a->producer = b;
    assert_rejected(graph, "graph 'g': value 'a' names a producer that does not make it");
    a->producer = node_named(graph, "A");
    node_set_int(b, "n", 1);
    b->attrs[0]->type = ATTR_TENSOR;
    assert_rejected(graph, "Neg 'B': has an attribute whose value does not fit its type: 'n'");
    b->attrs[0]->type = ATTR_INT;
    graph->node_count = 3;
    assert_rejected(graph, "graph 'g' counts 3 nodes and has 2");
    graph->node_count = 2;
    x->is_input = false;
    assert_rejected(graph, "graph 'g': value 'x' is a graph input that does not know it");
    model_free(model);
}

static void opsets_and_metadata_are_added_replaced_removed(void **state)
{
    (void)state;
    Model *model = model_new(NULL);
    model_set_opset(model, "", 17);
    assert_int_equal(model_opset(model, "ai.onnx"), 17);
    model_set_opset(model, "ai.onnx", 18);
    assert_int_equal(model_opset(model, ""), 18);
    assert_int_equal(model_opset(model, "com.microsoft"), 0);
    model_set_metadata(model, "a", "1");
    model_set_metadata(model, "b", "2");
    model_set_metadata(model, "a", "3");
    assert_string_equal(model_metadata(model, "a"), "3");
    model_set_metadata(model, "a", NULL);
    assert_null(model_metadata(model, "a"));
    assert_int_equal(model->metadata_count, 1);
    model_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(taken_names_get_a_fresh_one),
        cmocka_unit_test(nodes_go_where_they_are_told),
        cmocka_unit_test(replacing_uses_moves_outputs_too),
        cmocka_unit_test(removing_a_node_takes_its_uses_and_lonely_outputs_along),
        cmocka_unit_test(a_new_producer_may_take_over_the_name),
        cmocka_unit_test(initializers_and_inputs_come_and_go),
        cmocka_unit_test(sorting_is_stable_and_sees_what_bodies_read),
        cmocka_unit_test(a_cycle_is_named),
        cmocka_unit_test(a_long_chain_sorts_backwards_without_recursion),
        cmocka_unit_test(a_clone_is_equal_and_independent),
        cmocka_unit_test(cloning_a_body_keeps_its_hold_on_outer_values),
        cmocka_unit_test(the_checker_names_what_is_broken),
        cmocka_unit_test(opsets_and_metadata_are_added_replaced_removed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
