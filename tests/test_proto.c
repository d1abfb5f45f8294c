/* onnx/proto: our schema against the one that libonnx-dev installs, field by field: what the older one names, ours must
 * have with the same number, type and label. Skipped where there is none. */
#include "tests/test.h"

#include <ctype.h>
#include <protobuf-c/protobuf-c.h>

#include "onnx.pb-c.h"
#include "onnx/base/file.h"
#include "onnx/base/str.h"

enum { TOKEN = 128, DEPTH = 8, TYPES = 64 };

typedef struct Schema {
    const char *p, *end;
    char token[TOKEN];
    char scope[DEPTH][TOKEN]; /* message names, outermost first */
    int depth;
    const ProtobufCMessageDescriptor *types[TYPES];
    size_t type_count;
    int fields, values; /* compared */
} Schema;

/* ---- reading ------------------------------------------------------------------------------------------- */

static void skip_space(Schema *s)
{
    while (s->p < s->end) {
        if (isspace((unsigned char)*s->p))
            s->p++;
        else if (s->p + 1 < s->end && s->p[0] == '/' && s->p[1] == '/')
            while (s->p < s->end && *s->p != '\n')
                s->p++;
        else
            return;
    }
}

/* The next word or punctuation mark; "" at the end. */
static const char *next(Schema *s)
{
    skip_space(s);
    size_t n = 0;
    while (s->p < s->end && (isalnum((unsigned char)*s->p) || *s->p == '_' || *s->p == '.' || *s->p == '"') &&
           n + 1 < TOKEN)
        s->token[n++] = *s->p++;
    if (n == 0 && s->p < s->end)
        s->token[n++] = *s->p++;
    s->token[n] = '\0';
    return s->token;
}

static bool is(const Schema *s, const char *token)
{
    return strcmp(s->token, token) == 0;
}

static void skip_to(Schema *s, const char *token)
{
    while (s->token[0] != '\0' && !is(s, token))
        next(s);
}

/* ---- our schema ------------------------------------------------------------------------------------------- */

static void collect(Schema *s, const ProtobufCMessageDescriptor *type)
{
    for (size_t i = 0; i < s->type_count; i++)
        if (s->types[i] == type)
            return;
    assert_true(s->type_count < TYPES);
    s->types[s->type_count++] = type;
    for (unsigned i = 0; i < type->n_fields; i++)
        if (type->fields[i].type == PROTOBUF_C_TYPE_MESSAGE)
            collect(s, type->fields[i].descriptor);
}

static const ProtobufCMessageDescriptor *find_type(const Schema *s)
{
    Str name;
    str_init(&name);
    str_append(&name, "onnx");
    for (int i = 0; i < s->depth; i++)
        str_printf(&name, ".%s", s->scope[i]);
    const ProtobufCMessageDescriptor *found = NULL;
    for (size_t i = 0; i < s->type_count; i++)
        if (strcmp(s->types[i]->name, name.text) == 0)
            found = s->types[i];
    if (found == NULL)
        fail_msg("our schema has no message %s", name.text);
    str_release(&name);
    return found;
}

static bool type_agrees(const ProtobufCFieldDescriptor *field, const char *type)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_INT32:
        return strcmp(type, "int32") == 0;
    case PROTOBUF_C_TYPE_INT64:
        return strcmp(type, "int64") == 0;
    case PROTOBUF_C_TYPE_UINT64:
        return strcmp(type, "uint64") == 0;
    case PROTOBUF_C_TYPE_FLOAT:
        return strcmp(type, "float") == 0;
    case PROTOBUF_C_TYPE_DOUBLE:
        return strcmp(type, "double") == 0;
    case PROTOBUF_C_TYPE_STRING:
        return strcmp(type, "string") == 0;
    case PROTOBUF_C_TYPE_BYTES:
        return strcmp(type, "bytes") == 0;
    case PROTOBUF_C_TYPE_MESSAGE:
        return text_ends(((const ProtobufCMessageDescriptor *)field->descriptor)->name, type);
    case PROTOBUF_C_TYPE_ENUM:
        return text_ends(((const ProtobufCEnumDescriptor *)field->descriptor)->name, type);
    default:
        return false;
    }
}

/* ---- comparing ---------------------------------------------------------------------------------------------- */

static void compare_enum(Schema *s)
{
    static const ProtobufCEnumDescriptor *const enums[] = {
        &onnx__version__descriptor, &onnx__operator_status__descriptor, &onnx__tensor_proto__data_type__descriptor,
        &onnx__tensor_proto__data_location__descriptor, &onnx__attribute_proto__attribute_type__descriptor};
    const ProtobufCEnumDescriptor *ours = NULL;
    next(s);
    for (size_t i = 0; i < sizeof enums / sizeof *enums; i++)
        if (strcmp(enums[i]->short_name, s->token) == 0)
            ours = enums[i];
    assert_non_null(ours);
    for (next(s), next(s); !is(s, "}") && !is(s, ""); next(s)) {
        char name[TOKEN];
        snprintf(name, sizeof name, "%s", s->token);
        next(s);
        long number = strtol(next(s), NULL, 0);
        const ProtobufCEnumValue *value = protobuf_c_enum_descriptor_get_value_by_name(ours, name);
        if (value == NULL)
            fail_msg("%s has no value %s", ours->name, name);
        /* the newest version of a schema is called IR_VERSION there */
        if (strcmp(name, "IR_VERSION") != 0)
            assert_int_equal(value->value, number);
        s->values++;
        skip_to(s, ";");
    }
}

/* `s->token` is the label, or the type inside of a oneof. */
static void compare_field(Schema *s)
{
    bool repeated = is(s, "repeated");
    if (repeated || is(s, "optional") || is(s, "required"))
        next(s);
    char type[TOKEN], name[TOKEN];
    snprintf(type, sizeof type, "%s", s->token);
    snprintf(name, sizeof name, "%s", next(s));
    next(s);
    unsigned number = (unsigned)strtoul(next(s), NULL, 0);
    bool packed = false;
    for (; !is(s, ";") && !is(s, ""); next(s))
        packed = packed || is(s, "packed");
    const ProtobufCMessageDescriptor *ours = find_type(s);
    const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field(ours, number);
    if (field == NULL || strcmp(field->name, name) != 0)
        fail_msg("%s.%s = %u: ours has %s there", ours->name, name, number, field == NULL ? "nothing" : field->name);
    if (!type_agrees(field, type) || (field->label == PROTOBUF_C_LABEL_REPEATED) != repeated)
        fail_msg("%s.%s has another type or label than %s%s", ours->name, name, repeated ? "repeated " : "", type);
    assert_int_equal(packed, (field->flags & PROTOBUF_C_FIELD_FLAG_PACKED) != 0);
    s->fields++;
}

static void compare_message(Schema *s)
{
    assert_true(s->depth < DEPTH);
    snprintf(s->scope[s->depth++], TOKEN, "%s", next(s));
    next(s);
    for (next(s); !is(s, "}") && !is(s, ""); next(s)) {
        if (is(s, "message"))
            compare_message(s);
        else if (is(s, "enum"))
            compare_enum(s);
        else if (is(s, "reserved"))
            skip_to(s, ";");
        else if (is(s, "oneof"))
            for (next(s), next(s), next(s); !is(s, "}") && !is(s, ""); next(s))
                compare_field(s);
        else if (!is(s, ";"))
            compare_field(s);
    }
    s->depth--;
}

static void schema_agrees_with_the_installed_one(void **state)
{
    (void)state;
    if (strlen(ONNX_SCHEMA) == 0) {
        print_message("skipped: libonnx-dev is not installed (onnx/onnx.proto)\n");
        skip();
    }
    Mapping file;
    Error err = {0};
    assert_ok(mapping_open(&file, ONNX_SCHEMA, &err), &err);
    Schema s = {.p = (const char *)file.data, .end = (const char *)file.data + file.size};
    collect(&s, &onnx__model_proto__descriptor);
    for (next(&s); s.token[0] != '\0'; next(&s)) {
        if (is(&s, "message"))
            compare_message(&s);
        else if (is(&s, "enum"))
            compare_enum(&s);
        else
            skip_to(&s, ";");
    }
    print_message("%d fields, %d values agree\n", s.fields, s.values);
    assert_true(s.fields > 80 && s.values > 40);
    mapping_release(&file);
}

/* The numbers of the newest additions, which the schema of Debian 12 does not have yet. Source: onnx 1.23. */
static void newest_fields_have_their_published_numbers(void **state)
{
    (void)state;
    const struct {
        const ProtobufCMessageDescriptor *type;
        const char *name;
        unsigned number;
    } fields[] = {
        {&onnx__value_info_proto__descriptor, "metadata_props", 4},
        {&onnx__node_proto__descriptor, "overload", 8},
        {&onnx__node_proto__descriptor, "metadata_props", 9},
        {&onnx__node_proto__descriptor, "device_configurations", 10},
        {&onnx__graph_proto__descriptor, "metadata_props", 16},
        {&onnx__tensor_proto__descriptor, "metadata_props", 16},
        {&onnx__function_proto__descriptor, "attribute_proto", 11},
        {&onnx__function_proto__descriptor, "value_info", 12},
        {&onnx__function_proto__descriptor, "overload", 13},
        {&onnx__function_proto__descriptor, "metadata_props", 14},
        {&onnx__model_proto__descriptor, "configuration", 26},
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        const ProtobufCFieldDescriptor *field =
            protobuf_c_message_descriptor_get_field(fields[i].type, fields[i].number);
        assert_non_null(field);
        assert_string_equal(field->name, fields[i].name);
    }
    assert_int_equal(ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT6E3M2, 28);
    assert_int_equal(ONNX__VERSION__IR_VERSION, 14);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(schema_agrees_with_the_installed_one),
        cmocka_unit_test(newest_fields_have_their_published_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
