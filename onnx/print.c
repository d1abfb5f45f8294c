/* onnx/print.c: to be written. */
#include "onnx/onnx.h"
