/* onnx/import.c: to be written. */
#include "onnx/onnx.h"
