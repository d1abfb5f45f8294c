/* Inside of the reader of the text form: what parse.c (attributes, nodes, graphs, models), parse_tensor.c (types,
 * tensors) and parse_word.c (characters, words, numbers) share. */
#ifndef REGRAFT_ONNX_PARSE_H
#define REGRAFT_ONNX_PARSE_H

#include "onnx/op.h"

typedef struct Parser {
    const char *text, *at;
    int depth;
    Model *model;
    Arena *arena;
    size_t function_capacity;
    const Opset *opsets; /* of the model or the function at hand */
    size_t opset_count;
    Status status;
    Error *err;
} Parser;

/* ---- parse_word.c ---------------------------------------------------------------------------------------- */

/* The first failure sticks, with its line: everything then reads nothing. */
void parser_bad(Parser *p, const char *what, const char *which);
bool parser_ok(const Parser *p);
char parser_peek(Parser *p);                     /* the next character that means something */
bool parser_accept(Parser *p, const char *word); /* reads it when it is there */
void parser_expect(Parser *p, const char *word);
int parser_hex_digit(char c); /* -1: none */
Bytes parser_quoted(Parser *p);
bool parser_at_name(Parser *p);
const char *parser_name_with(Parser *p, bool dots);
const char *parser_name(Parser *p);
double parser_number(Parser *p, int64_t *integer, bool *whole);
int64_t parser_integer(Parser *p);

/* ---- parse_tensor.c -------------------------------------------------------------------------------------- */

void parse_type(Parser *p, const char *word, Type *type);
Tensor *parse_tensor(Parser *p, const char *tensor_name, const Type *type);
Tensor *parse_tensor_literal(Parser *p);

#endif
