/* TypeProto <-> Type. A Type holds less: export writes a TypeProto as it was read while the Type is as it was read,
 * which type_hash tells. */
#include "onnx/gate.h"

static void type_of_tensor(Arena *arena, int32_t elem_type, const Onnx__TensorShapeProto *shape, Type *type)
{
    type->dtype = elem_type > 0 && elem_type < DTYPE_COUNT ? (DType)elem_type : DTYPE_UNDEFINED;
    if (shape == NULL || shape->n_dim > RANK_MAX)
        return;
    type->rank = (int)shape->n_dim;
    for (size_t i = 0; i < shape->n_dim; i++) {
        const Onnx__TensorShapeProto__Dimension *dim = shape->dim[i];
        type->dims[i] = -1;
        if (dim->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE && dim->dim_value >= 0)
            type->dims[i] = dim->dim_value;
        else if (dim->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM && dim->dim_param[0] != '\0')
            type->symbols[i] = arena_strdup(arena, dim->dim_param);
    }
}

/* The element type at the bottom of sequences and optionals. */
static DType bottom_dtype(const Onnx__TypeProto *proto)
{
    while (proto != NULL) {
        switch (proto->value_case) {
        case ONNX__TYPE_PROTO__VALUE_SEQUENCE_TYPE:
            proto = proto->sequence_type->elem_type;
            break;
        case ONNX__TYPE_PROTO__VALUE_OPTIONAL_TYPE:
            proto = proto->optional_type->elem_type;
            break;
        default: {
            Type type = {.rank = -1};
            if (proto->value_case == ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE)
                type_of_tensor(NULL, proto->tensor_type->elem_type, NULL, &type);
            return type.dtype;
        }
        }
    }
    return DTYPE_UNDEFINED;
}

void type_from_proto(Arena *arena, const Onnx__TypeProto *proto, Type *type)
{
    *type = (Type){.kind = TYPE_UNKNOWN, .rank = -1};
    if (proto == NULL)
        return;
    type->dtype = bottom_dtype(proto);
    switch (proto->value_case) {
    case ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE:
        type->kind = TYPE_TENSOR;
        type_of_tensor(arena, proto->tensor_type->elem_type, proto->tensor_type->shape, type);
        break;
    case ONNX__TYPE_PROTO__VALUE_SPARSE_TENSOR_TYPE:
        type->kind = TYPE_SPARSE;
        type_of_tensor(arena, proto->sparse_tensor_type->elem_type, proto->sparse_tensor_type->shape, type);
        break;
    case ONNX__TYPE_PROTO__VALUE_SEQUENCE_TYPE:
        type->kind = TYPE_SEQUENCE;
        break;
    case ONNX__TYPE_PROTO__VALUE_OPTIONAL_TYPE:
        type->kind = TYPE_OPTIONAL;
        break;
    case ONNX__TYPE_PROTO__VALUE_MAP_TYPE:
        type->kind = TYPE_MAP;
        break;
    default: /* opaque, or nothing set */
        break;
    }
}

static Onnx__TensorShapeProto *shape_to_proto(Arena *arena, const Type *type)
{
    if (type->rank < 0)
        return NULL;
    Onnx__TensorShapeProto *shape = arena_new(arena, Onnx__TensorShapeProto);
    onnx__tensor_shape_proto__init(shape);
    shape->n_dim = (size_t)type->rank;
    shape->dim = arena_array(arena, Onnx__TensorShapeProto__Dimension *, shape->n_dim);
    for (int i = 0; i < type->rank; i++) {
        Onnx__TensorShapeProto__Dimension *dim = arena_new(arena, Onnx__TensorShapeProto__Dimension);
        onnx__tensor_shape_proto__dimension__init(dim);
        if (type->dims[i] >= 0) {
            dim->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
            dim->dim_value = type->dims[i];
        } else if (type->symbols[i] != NULL) {
            dim->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM;
            dim->dim_param = arena_strdup(arena, type->symbols[i]);
        }
        shape->dim[i] = dim;
    }
    return shape;
}

static Onnx__TypeProto *tensor_to_proto(Arena *arena, const Type *type, bool with_shape)
{
    Onnx__TypeProto *proto = arena_new(arena, Onnx__TypeProto);
    onnx__type_proto__init(proto);
    proto->value_case = ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE;
    proto->tensor_type = arena_new(arena, Onnx__TypeProto__Tensor);
    onnx__type_proto__tensor__init(proto->tensor_type);
    proto->tensor_type->has_elem_type = 1;
    proto->tensor_type->elem_type = (int32_t)type->dtype;
    proto->tensor_type->shape = with_shape ? shape_to_proto(arena, type) : NULL;
    return proto;
}

Onnx__TypeProto *type_to_proto(Arena *arena, const Type *type)
{
    if (type->dtype == DTYPE_UNDEFINED)
        return NULL;
    Onnx__TypeProto *proto = tensor_to_proto(arena, type, type->kind == TYPE_TENSOR);
    Onnx__TypeProto *outer = arena_new(arena, Onnx__TypeProto);
    onnx__type_proto__init(outer);
    switch (type->kind) {
    case TYPE_TENSOR:
        return proto;
    case TYPE_SEQUENCE:
        outer->value_case = ONNX__TYPE_PROTO__VALUE_SEQUENCE_TYPE;
        outer->sequence_type = arena_new(arena, Onnx__TypeProto__Sequence);
        onnx__type_proto__sequence__init(outer->sequence_type);
        outer->sequence_type->elem_type = proto;
        return outer;
    case TYPE_OPTIONAL:
        outer->value_case = ONNX__TYPE_PROTO__VALUE_OPTIONAL_TYPE;
        outer->optional_type = arena_new(arena, Onnx__TypeProto__Optional);
        onnx__type_proto__optional__init(outer->optional_type);
        outer->optional_type->elem_type = proto;
        return outer;
    case TYPE_SPARSE:
        outer->value_case = ONNX__TYPE_PROTO__VALUE_SPARSE_TENSOR_TYPE;
        outer->sparse_tensor_type = arena_new(arena, Onnx__TypeProto__SparseTensor);
        onnx__type_proto__sparse_tensor__init(outer->sparse_tensor_type);
        outer->sparse_tensor_type->has_elem_type = 1;
        outer->sparse_tensor_type->elem_type = (int32_t)type->dtype;
        outer->sparse_tensor_type->shape = shape_to_proto(arena, type);
        return outer;
    case TYPE_MAP:
    case TYPE_UNKNOWN:
        return NULL;
    }
    return NULL;
}

/* FNV-1a over everything a Type says. Source: Fowler, Noll, Vo, "The FNV Non-Cryptographic Hash Algorithm". */
static uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t size)
{
    const unsigned char *p = bytes;
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ p[i]) * 0x100000001b3u;
    return hash;
}

uint64_t type_hash(const Type *type)
{
    int head[3] = {(int)type->kind, (int)type->dtype, type->rank};
    uint64_t hash = hash_bytes(0xcbf29ce484222325u, head, sizeof head);
    for (int i = 0; i < type->rank; i++) {
        hash = hash_bytes(hash, &type->dims[i], sizeof type->dims[i]);
        if (type->symbols[i] != NULL)
            hash = hash_bytes(hash, type->symbols[i], strlen(type->symbols[i]) + 1);
    }
    return hash;
}
