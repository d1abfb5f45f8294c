/* onnx/dtype.c: to be written. */
#include "onnx/onnx.h"
