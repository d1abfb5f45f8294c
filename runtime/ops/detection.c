/* Family: choosing boxes. NonMaxSuppression only: how many boxes it keeps depends on data, so it is interpreted and has
 * no gradient. */
#include <stdlib.h>
#include <string.h>

#include "runtime/ops/ops.h"

enum { NMS_BOXES, NMS_SCORES, NMS_MOST, NMS_IOU, NMS_SCORE };

typedef struct Corners {
    double top, left, bottom, right;
} Corners;

typedef struct Candidate {
    double score;
    int64_t box;
} Candidate;

/* Four numbers are two opposite corners [y1, x1, y2, x2] in any order, or [x centre, y centre, width, height]. */
static Corners corners_of(const Array *boxes, int64_t at, bool centre)
{
    double v[4];
    for (int i = 0; i < 4; i++)
        v[i] = array_f64_at(boxes, at + i);
    if (centre)
        return (Corners){v[1] - v[3] / 2, v[0] - v[2] / 2, v[1] + v[3] / 2, v[0] + v[2] / 2};
    Corners c = {v[0] < v[2] ? v[0] : v[2], v[1] < v[3] ? v[1] : v[3], v[0] < v[2] ? v[2] : v[0],
                 v[1] < v[3] ? v[3] : v[1]};
    return c;
}

static double overlap(Corners a, Corners b) /* intersection over union */
{
    double top = a.top > b.top ? a.top : b.top, bottom = a.bottom < b.bottom ? a.bottom : b.bottom;
    double left = a.left > b.left ? a.left : b.left, right = a.right < b.right ? a.right : b.right;
    double both = bottom > top && right > left ? (bottom - top) * (right - left) : 0;
    double either = (a.bottom - a.top) * (a.right - a.left) + (b.bottom - b.top) * (b.right - b.left) - both;
    return either > 0 ? both / either : 0;
}

static int by_score(const void *a, const void *b) /* best first; equal scores in order of boxes */
{
    const Candidate *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return x->box < y->box ? -1 : x->box > y->box;
}

typedef struct Suppression {
    const Array *boxes, *scores;
    int64_t count, most; /* boxes a sample; kept at most, a class */
    double iou, least;
    bool centre, has_least;
    Candidate *candidates; /* [count] */
    int64_t *kept;         /* [count] */
} Suppression;

/* Keeps boxes of one class of one sample, best first, that overlap none kept before by more than `iou`. */
static int64_t suppress(const Suppression *s, int64_t sample, int64_t class_index, int64_t classes)
{
    int64_t n = 0, kept = 0, base = sample * s->count * 4;
    for (int64_t i = 0; i < s->count; i++) {
        double score = array_f64_at(s->scores, (sample * classes + class_index) * s->count + i);
        if (!s->has_least || score > s->least)
            s->candidates[n++] = (Candidate){score, i};
    }
    qsort(s->candidates, (size_t)n, sizeof s->candidates[0], by_score);
    for (int64_t i = 0; i < n && kept < s->most; i++) {
        Corners box = corners_of(s->boxes, base + s->candidates[i].box * 4, s->centre);
        bool free_of_others = true;
        for (int64_t k = 0; k < kept && free_of_others; k++)
            free_of_others = overlap(box, corners_of(s->boxes, base + s->kept[k] * 4, s->centre)) <= s->iou;
        if (free_of_others)
            s->kept[kept++] = s->candidates[i].box;
    }
    return kept;
}

static double scalar_or(const EvalContext *context, int index, double absent)
{
    const Array *array = eval_input(context, index);
    return array == NULL || array->count < 1 ? absent : array_f64_at(array, 0);
}

static Status nms_eval(EvalContext *context, Error *err)
{
    const Array *boxes = context->in[NMS_BOXES], *scores = context->in[NMS_SCORES];
    if (boxes->rank != 3 || scores->rank != 3 || boxes->dims[2] != 4 || boxes->dims[0] != scores->dims[0] ||
        boxes->dims[1] != scores->dims[2])
        return eval_fail(context, err, "boxes [batch, boxes, 4] and scores [batch, classes, boxes] expected");
    int64_t samples = scores->dims[0], classes = scores->dims[1], most = eval_int_or(context, NMS_MOST, 0);
    Suppression s = {.boxes = boxes,
                     .scores = scores,
                     .count = scores->dims[2],
                     .most = most < scores->dims[2] ? most : scores->dims[2],
                     .iou = scalar_or(context, NMS_IOU, 0),
                     .least = scalar_or(context, NMS_SCORE, 0),
                     .centre = node_int(context->node, "center_point_box", 0) != 0,
                     .has_least = eval_input(context, NMS_SCORE) != NULL};
    s.candidates = arena_array(context->arena, Candidate, (size_t)s.count + 1);
    s.kept = arena_array(context->arena, int64_t, (size_t)s.count + 1);
    int64_t room = s.most > 0 ? s.most * samples * classes : 0, total = 0;
    int64_t *chosen = arena_array(context->arena, int64_t, (size_t)room * 3 + 1);
    for (int64_t n = 0; n < samples; n++)
        for (int64_t c = 0; c < classes; c++) {
            int64_t kept = s.most > 0 ? suppress(&s, n, c, classes) : 0;
            for (int64_t k = 0; k < kept; k++, total++)
                memcpy(chosen + total * 3, ((const int64_t[]){n, c, s.kept[k]}), 3 * sizeof *chosen);
        }
    Array *out;
    TRY(eval_output(context, 0, DTYPE_I64, 2, (const int64_t[]){total, 3}, &out, err));
    memcpy(out->data, chosen, (size_t)total * 3 * sizeof *chosen);
    return STATUS_OK;
}

const OpDef ops_detection[] = {
    {.name = "NonMaxSuppression",
     .since = 10,
     .last = 28,
     .min_inputs = 2,
     .max_inputs = 5,
     .min_outputs = 1,
     .max_outputs = 1,
     .eval = nms_eval,
     .no_gradient = "it chooses boxes by comparing"},
    {0},
};
