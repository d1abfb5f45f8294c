/* onnx/check.c: to be written. */
#include "onnx/onnx.h"
