/* Random small graphs of mixed operators for suite_graphs.c, so that layouts spread, blocked tensors are sliced,
 * joined, reshaped and broadcast, chains run in place and inner values are outputs too. */
#ifndef REGRAFT_TESTS_RANDOM_GRAPHS_H
#define REGRAFT_TESTS_RANDOM_GRAPHS_H

#include <stdbool.h>

#include "onnx/onnx.h"

enum { VALUES_MAX = 64 }; /* inputs and nodes of a graph */

extern bool random_graph_tells; /* which nodes were refused goes to stdout */

/* The same graph for the same seed and number, whatever the dtype of its floats. */
Model *random_graph(uint64_t seed, uint64_t number, DType dtype);

#endif
