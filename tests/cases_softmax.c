/* Gradient cases of runtime/ops/softmax.c and losses.c; the form is explained in gradient_cases.h. */
#include "tests/gradient_cases.h"

#define INTERNAL "\"\" : 28, \"ai.regraft\" : 1"

/* clang-format off */
const GradientCase cases_softmax[] = {
    {.name = "Softmax: last axis", .inputs = "T[3,7] x", .nodes = "y = Softmax(x)", .wrt = "x", .values = "x=-4..4"},
    {.name = "Softmax: long rows", .inputs = "T[5,200] x", .nodes = "y = Softmax(x)", .wrt = "x", .values = "x=-9..9"},
    {.name = "Softmax: axis 1 of images", .inputs = "T[2,5,9,9] x", .nodes = "y = Softmax<axis=1>(x)", .wrt = "x", .values = "x=-4..4"},
    {.name = "Softmax: axis 0", .inputs = "T[4,70] x", .nodes = "y = Softmax<axis=0>(x)", .wrt = "x", .values = "x=-4..4"},
    {.name = "Softmax: opset 11, one row a sample", .opsets = "\"\" : 11", .inputs = "T[2,3,4] x", .nodes = "y = Softmax(x)", .wrt = "x"},
    {.name = "Softmax: opset 11, axis 0", .opsets = "\"\" : 11", .inputs = "T[2,3,4] x", .nodes = "y = Softmax<axis=0>(x)", .wrt = "x"},
    {.name = "Softmax: opset 11, last axis", .opsets = "\"\" : 11", .inputs = "T[2,3,4] x", .nodes = "y = Softmax<axis=2>(x)", .wrt = "x"},
    {.name = "Softmax: no samples", .inputs = "T[0,4] x", .nodes = "y = Softmax(x)", .wrt = "x"},
    {.name = "LogSoftmax: last axis", .inputs = "T[3,7] x", .nodes = "y = LogSoftmax(x)", .wrt = "x", .values = "x=-4..4"},
    {.name = "LogSoftmax: long rows", .inputs = "T[5,200] x", .nodes = "y = LogSoftmax(x)", .wrt = "x", .values = "x=-9..9"},
    {.name = "LogSoftmax: axis 1 of images", .inputs = "T[2,5,9,9] x", .nodes = "y = LogSoftmax<axis=1>(x)", .wrt = "x", .values = "x=-4..4"},
    {.name = "LogSoftmax: opset 11", .opsets = "\"\" : 11", .inputs = "T[2,3,4] x", .nodes = "y = LogSoftmax(x)", .wrt = "x"},

    {.name = "NegativeLogLikelihoodLoss: mean", .inputs = "T[4,5] x, int64[4] t", .nodes = "y = NegativeLogLikelihoodLoss(x, t)", .wrt = "x", .values = "t=0..4"},
    {.name = "NegativeLogLikelihoodLoss: weighted mean with ignored targets", .inputs = "T[4,3,2] x, int64[4,2] t, T[3] w", .nodes = "y = NegativeLogLikelihoodLoss<ignore_index=-1>(x, t, w)", .wrt = "x", .values = "t={0,-1,2,1,-1,0,2,2} w=0.5..2"},
    {.name = "NegativeLogLikelihoodLoss: by the weights of a mean", .inputs = "T[4,3,2] x, int64[4,2] t, T[3] w", .nodes = "y = NegativeLogLikelihoodLoss<ignore_index=1>(x, t, w)", .wrt = "x w", .values = "t=0..2 w=0.5..2"},
    {.name = "NegativeLogLikelihoodLoss: by the weights of a sum", .inputs = "T[4,3] x, int32[4] t, T[3] w", .nodes = "y = NegativeLogLikelihoodLoss<reduction=\"sum\">(x, t, w)", .wrt = "x w", .values = "t=0..2 w=0.5..2"},
    {.name = "NegativeLogLikelihoodLoss: by the weights of each", .inputs = "T[4,3,2,2] x, int64[4,2,2] t, T[3] w", .nodes = "y = NegativeLogLikelihoodLoss<reduction=\"none\", ignore_index=0>(x, t, w)", .wrt = "x w", .values = "t=0..2 w=0.5..2"},
    {.name = "SoftmaxCrossEntropyLoss: by the weights", .inputs = "T[4,3,2] x, int64[4,2] t, T[3] w", .nodes = "y = SoftmaxCrossEntropyLoss(x, t, w)", .wrt = "x w", .values = "t=0..2 w=0.5..2"},
    {.name = "NegativeLogLikelihoodLoss: sum", .inputs = "T[4,5] x, int32[4] t", .nodes = "y = NegativeLogLikelihoodLoss<reduction=\"sum\">(x, t)", .wrt = "x", .values = "t=0..4"},
    {.name = "NegativeLogLikelihoodLoss: none", .inputs = "T[4,5,2] x, int64[4,2] t, T[5] w", .nodes = "y = NegativeLogLikelihoodLoss<reduction=\"none\">(x, t, w)", .wrt = "x", .values = "t=0..4 w=0.5..2"},
    {.name = "SoftmaxCrossEntropyLoss of ONNX: mean", .inputs = "T[4,5] x, int64[4] t", .nodes = "y = SoftmaxCrossEntropyLoss(x, t)", .wrt = "x", .values = "t=0..4"},
    {.name = "SoftmaxCrossEntropyLoss of ONNX: both outputs, weights, ignored", .inputs = "T[4,3,2] x, int64[4,2] t, T[3] w", .nodes = "y, p = SoftmaxCrossEntropyLoss<ignore_index=-1, reduction=\"sum\">(x, t, w)", .outputs = "y p", .wrt = "x", .values = "t={0,-1,2,1,-1,0,2,2} w=0.5..2"},

    {.name = "SoftmaxCrossEntropyLoss: mean", .opsets = INTERNAL, .inputs = "T[6,5] x, int64[6] t", .nodes = "y = ai.regraft.SoftmaxCrossEntropyLoss(x, t)", .wrt = "x", .values = "t=0..4 x=-3..3"},
    {.name = "SoftmaxCrossEntropyLoss: many classes", .opsets = INTERNAL, .inputs = "T[12,300] x, int64[12] t", .nodes = "y = ai.regraft.SoftmaxCrossEntropyLoss(x, t)", .wrt = "x", .values = "t=0..299 x=-3..3"},
    {.name = "SoftmaxCrossEntropyLoss: weights, smoothing, ignored", .opsets = INTERNAL, .inputs = "T[6,5] x, int64[6] t, T[5] w", .nodes = "y = ai.regraft.SoftmaxCrossEntropyLoss<ignore_index=-1, label_smoothing=0.1>(x, t, w)", .wrt = "x", .values = "t={0,-1,4,2,-1,3} w=0.5..2"},
    {.name = "SoftmaxCrossEntropyLoss: smoothing without weights", .opsets = INTERNAL, .inputs = "T[6,5] x, int64[6] t", .nodes = "y = ai.regraft.SoftmaxCrossEntropyLoss<label_smoothing=0.2>(x, t)", .wrt = "x", .values = "t=0..4"},
    {.name = "SoftmaxCrossEntropyLoss: pixels", .opsets = INTERNAL, .inputs = "T[2,4,9,9] x, int64[2,9,9] t, T[4] w", .nodes = "y = ai.regraft.SoftmaxCrossEntropyLoss<ignore_index=3, label_smoothing=0.1>(x, t, w)", .wrt = "x", .values = "t=0..3 w=0.5..2"},
    {.name = "SoftmaxCrossEntropyLoss: tokens, classes last", .opsets = INTERNAL, .inputs = "T[2,6,11] x, int64[2,6] t", .nodes = "y = ai.regraft.SoftmaxCrossEntropyLoss<axis=-1, ignore_index=-1>(x, t)", .wrt = "x", .values = "t={0,-1,2,10,-1,7,2,3,-1,5,9,1}"},
    {.name = "SoftmaxCrossEntropyLoss: log-probabilities taken too", .opsets = INTERNAL, .inputs = "T[6,5] x, int64[6] t", .nodes = "y, p = ai.regraft.SoftmaxCrossEntropyLoss(x, t)", .wrt = "x", .values = "t=0..4"},
    {.name = "BCEWithLogitsLoss", .opsets = INTERNAL, .inputs = "T[6,5] x, T[6,5] t", .nodes = "y = ai.regraft.BCEWithLogitsLoss(x, t)", .wrt = "x t", .values = "x=-5..5 t=0..1"},
    {.name = "BCEWithLogitsLoss: large", .opsets = INTERNAL, .inputs = "T[60,90] x, T[60,90] t", .nodes = "y = ai.regraft.BCEWithLogitsLoss(x, t)", .wrt = "x", .values = "x=-30..30 t=0..1"},
    {0},
};
