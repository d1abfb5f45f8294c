/* onnx/eval.c: to be written. */
#include "onnx/onnx.h"
