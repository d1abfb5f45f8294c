/* data/dataset.c: to be written. */
#include "onnx/onnx.h"
