/* Written by make_torch_vectors.py (PyTorch 2.13.0); do not edit. */
static const double torch_clip_norm[] = {0.877579749, -1.7551595, 0.0103192115};
static const double torch_clip_value[] = {0.646999955, -1.57924998, 0.0792500451};
static const double torch_cosine[] = {1, 0.982962906, 0.933012724, 0.853553414, 0.75, 0.629409552, 0.5, 0.370590478, 0.25, 0.146446615, 0.0669872984, 0.0170370862};
static const double torch_linear[] = {1, 0.916666687, 0.833333313, 0.75, 0.666666687, 0.583333313, 0.5, 0.416666657, 0.333333343, 0.25, 0.166666672, 0.0833333358};
static const double torch_step[] = {1, 1, 1, 0.100000001, 0.100000001, 0.100000001, 0.00999999978, 0.00999999978, 0.00999999978, 0.00100000005, 0.00100000005, 0.00100000005};
static const double torch_logits[] = {0.5, -1.25, 2, 1.5, 0.25, -0.75, -2, 1, 0.125, 0, 3, -1};
static const double torch_cross_entropy[] = {1.25303984, 1.7376281, 1.31241488, 1.71828139};
