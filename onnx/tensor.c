/* onnx/tensor.c: to be written. */
#include "onnx/onnx.h"
