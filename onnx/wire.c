/* onnx/wire.c: to be written. */
#include "onnx/onnx.h"
