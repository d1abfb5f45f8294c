/* onnx/build.c: to be written. */
#include "onnx/onnx.h"
