/* onnx/parse.c: to be written. */
#include "onnx/onnx.h"
