/* onnx/external.c: to be written. */
#include "onnx/onnx.h"
