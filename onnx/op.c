/* onnx/op.c: to be written. */
#include "onnx/onnx.h"
