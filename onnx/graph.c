/* onnx/graph.c: to be written. */
#include "onnx/onnx.h"
