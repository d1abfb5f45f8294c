/* onnx/export.c: to be written. */
#include "onnx/onnx.h"
