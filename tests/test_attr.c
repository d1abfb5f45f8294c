/* Attributes: defaults, replacing, sharing between a node and its clone. */
#include "tests/test.h"

#include <string.h>

#include "onnx/onnx.h"

static Node *new_node(Model **model)
{
    *model = model_new(NULL);
    return graph_add_node((*model)->graph, NULL, "", "Op", 20, "n", NULL, 0, 0);
}

static void absent_attributes_give_the_default(void **state)
{
    (void)state;
    Model *model;
    Node *node = new_node(&model);
    size_t count = 7;
    assert_int_equal(node_int(node, "i", 5), 5);
    assert_true(node_float(node, "f", 0.5f) == 0.5f);
    assert_string_equal(node_string(node, "s", "none"), "none");
    assert_null(node_ints(node, "is", &count));
    assert_int_equal(count, 0);
    assert_null(node_floats(node, "fs", &count));
    assert_null(node_tensor(node, "t"));
    assert_null(node_graph(node, "g"));
    model_free(model);
}

static void an_attribute_of_another_type_counts_as_absent(void **state)
{
    (void)state;
    Model *model;
    Node *node = new_node(&model);
    node_set_float(node, "a", 2);
    assert_int_equal(node_int(node, "a", 5), 5);
    assert_non_null(node_attr(node, "a"));
    model_free(model);
}

static void setting_replaces_and_removing_removes(void **state)
{
    (void)state;
    Model *model;
    Node *node = new_node(&model);
    node_set_int(node, "a", 1);
    node_set_string(node, "b", "x");
    node_set_ints(node, "c", (int64_t[]){1, 2}, 2);
    node_set_int(node, "a", 2);
    assert_int_equal(node->attr_count, 3);
    assert_int_equal(node_int(node, "a", 0), 2);
    node_remove_attr(node, "b");
    node_remove_attr(node, "never there");
    assert_int_equal(node->attr_count, 2);
    size_t count;
    assert_int_equal(node_ints(node, "c", &count)[1], 2);
    model_free(model);
}

static void setting_on_a_clone_leaves_the_original_alone(void **state)
{
    (void)state;
    Model *model;
    Node *node = new_node(&model);
    node_set_floats(node, "a", (float[]){1}, 1);
    Node *copy = graph_add_node(model->graph, NULL, "", "Op", 20, "m", NULL, 0, 0);
    node_copy_attrs(copy, node);
    assert_ptr_equal(node_attr(copy, "a"), node_attr(node, "a"));
    node_set_floats(copy, "a", (float[]){2}, 1);
    node_set_int(copy, "b", 1);
    size_t count;
    assert_true(node_floats(node, "a", &count)[0] == 1);
    assert_int_equal(node->attr_count, 1);
    model_free(model);
}

static void a_graph_attribute_knows_its_node(void **state)
{
    (void)state;
    Model *model;
    Node *node = new_node(&model);
    Graph *body = graph_new(model, "body", NULL);
    node_set_graph(node, "body", body);
    assert_ptr_equal(body->parent, model->graph);
    assert_ptr_equal(body->parent_node, node);
    assert_ptr_equal(node_graph(node, "body"), body);
    model_free(model);
}

static void empty_lists_are_present(void **state)
{
    (void)state;
    Model *model;
    Node *node = new_node(&model);
    node_set_ints(node, "axes", NULL, 0);
    size_t count = 1;
    assert_non_null(node_ints(node, "axes", &count));
    assert_int_equal(count, 0);
    model_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(absent_attributes_give_the_default),
        cmocka_unit_test(an_attribute_of_another_type_counts_as_absent),
        cmocka_unit_test(setting_replaces_and_removing_removes),
        cmocka_unit_test(setting_on_a_clone_leaves_the_original_alone),
        cmocka_unit_test(a_graph_attribute_knows_its_node),
        cmocka_unit_test(empty_lists_are_present),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
