/* onnx/attr.c: to be written. */
#include "onnx/onnx.h"
