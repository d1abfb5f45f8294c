/* cli/args: option tables -> fields, and the messages that a mistyped command line gets. */
#include "tests/test.h"

#include <string.h>

#include "cli/args.h"

typedef struct Fields {
    const char *output;
    int64_t epochs, memory;
    double rate;
    int init;
    TextList train;
    bool json;
    const char *draw;
} Fields;

static const char *const inits[] = {"zero", "kaiming", "xavier", NULL};

static const Option options[] = {
    {OPTION("--output", 'o', TEXT, output, "FILE", "where the result goes"), .required = true},
    {OPTION("--epochs", 0, INT, epochs, "N", "passes over the data"), .bounded = true, .minimum = 1, .maximum = 1e6},
    {OPTION("--memory", 0, SIZE, memory, "SIZE", "limit"), .positive = true},
    {OPTION("--lr", 0, REAL, rate, "X", "learning rate"), .positive = true},
    {OPTION("--init", 0, CHOICE, init, "NAME", "initialisation"), .choices = inits},
    {OPTION("--train", 't', LIST, train, "PATTERN", "what to train"), .commas = true},
    {OPTION("--json", 0, FLAG, json, NULL, "print JSON")},
    {OPTION("--draw", 0, OPTIONAL, draw, "HOW", "picture")},
    {0}};

static const Usage usage = {.verb = "verb",
                            .arguments = "MODEL",
                            .summary = "Does things.",
                            .examples = {"regraft verb a.onnx -o b.onnx", "regraft verb --help"},
                            .options = options,
                            .minimum = 1,
                            .maximum = 2};

static Status parse(Fields *fields, Args *args, Error *err, const char *line)
{
    static char text[8][256];
    static char *words[64];
    static int use;
    char *copy = text[use++ % 8];
    snprintf(copy, 256, "%s", line);
    int count = 0;
    for (char *save = NULL, *word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save))
        words[count++] = word;
    *err = (Error){0};
    return args_parse(&usage, count, words, fields, args, err);
}

static void every_type_of_option_reaches_its_field(void **state)
{
    (void)state;
    Fields f = {.epochs = 3};
    Args args;
    Error err;
    assert_ok(parse(&f, &args, &err,
                    "verb m.onnx -oout --memory=1.5G --lr 1e-3 --init xavier --train a,b -t c --json --draw -- --odd"),
              &err);
    assert_string_equal(f.output, "out");
    assert_int_equal(f.epochs, 3);
    assert_int_equal(f.memory, (int64_t)3 << 29);
    assert_true(f.rate > 0.00099 && f.rate < 0.00101);
    assert_int_equal(f.init, 2);
    assert_int_equal(f.train.count, 3);
    assert_string_equal(f.train.items[1], "b");
    assert_string_equal(f.train.items[2], "c");
    assert_true(f.json);
    assert_string_equal(f.draw, "");
    assert_int_equal(args.count, 2);
    assert_string_equal(args.items[1], "--odd");
    assert_true(args_given(&args, "--lr"));
    assert_false(args_given(&args, "--epochs"));
}

static void mistakes_name_the_option_and_what_was_found(void **state)
{
    (void)state;
    static const struct {
        const char *line, *message;
    } cases[] = {
        {"verb m -o x --epohcs 3", "verb: unknown option '--epohcs' (did you mean '--epochs'?)"},
        {"verb m -o x --epochs ten", "--epochs takes a whole number, found 'ten'"},
        {"verb m -o x --epochs 0", "--epochs must be between 1 and 1e+06, found '0'"},
        {"verb m -o x --lr 0", "--lr must be above 0, found '0'"},
        {"verb m -o x --lr nan", "--lr takes a number, found 'nan'"},
        {"verb m -o x --memory 2X", "--memory takes a size such as 500M or 2G, found '2X'"},
        {"verb m -o x --init xavir", "--init is one of zero, kaiming, xavier; found 'xavir' (did you mean 'xavier'?)"},
        {"verb m -o x --lr --json", "verb: --lr needs a value (X)"},
        {"verb m -o x --json=1", "--json takes no value, found '--json=1'"},
        {"verb m", "verb: -o FILE is needed"},
        {"verb -o x", "verb: MODEL missing; usage: regraft verb MODEL"},
        {"verb a b c -o x", "verb: one argument too many: 'c'; usage: regraft verb MODEL"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Fields f = {0};
        Args args;
        Error err;
        assert_int_equal(parse(&f, &args, &err, cases[i].line), STATUS_USAGE);
        assert_string_equal(err.message, cases[i].message);
    }
}

static void sizes_take_suffixes(void **state)
{
    (void)state;
    int64_t bytes;
    assert_true(size_parse("500M", &bytes) && bytes == (int64_t)500 << 20);
    assert_true(size_parse("2GiB", &bytes) && bytes == (int64_t)2 << 30);
    assert_true(size_parse("12", &bytes) && bytes == 12);
    assert_false(size_parse("-1", &bytes));
    assert_false(size_parse("1e30", &bytes));
    assert_false(size_parse("", &bytes));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_of_option_reaches_its_field),
        cmocka_unit_test(mistakes_name_the_option_and_what_was_found),
        cmocka_unit_test(sizes_take_suffixes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
