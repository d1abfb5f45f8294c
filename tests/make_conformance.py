#!/usr/bin/env python3
"""Writes tests/conformance/cases.txt: for each operator, cases of the ONNX backend node tests that contain it and pass.

    regraft run --suite NODE_TESTS --json > results.jsonl
    python tests/make_conformance.py NODE_TESTS results.jsonl [FOLDER results.jsonl] > tests/conformance/cases.txt
    python tests/make_conformance.py --counts NODE_TESTS results.jsonl [...] > tests/conformance/counts.txt

Needs the package onnx. Later folders only add operators that earlier ones do not have. At most three cases an operator: the shortest names, in the newest opset first."""
import json, os, sys
import onnx


def operators(graph, found):
    for node in graph.node:
        domain = "" if node.domain == "ai.onnx" else node.domain
        found.add((domain, node.op_type))
        for attribute in node.attribute:
            for body in [attribute.g] * attribute.HasField("g") + list(attribute.graphs):
                operators(body, found)


def failing(results):
    """Cases that do not pass in one of the folders: their names may mean another model there."""
    lines = (json.loads(line) for file in results for line in open(file))
    return {case["case"] for case in lines if case.get("outcome", "passed") != "passed"}


def cases(folder, results, leave_out):
    index = {}
    for line in open(results):
        case = json.loads(line)
        if case.get("outcome") != "passed" or case["case"] in leave_out:
            continue
        model = onnx.load(os.path.join(folder, case["case"], "model.onnx"))
        found = set()
        operators(model.graph, found)
        opset = max(o.version for o in model.opset_import)
        for operator in found:
            index.setdefault(operator, []).append((len(found), -opset, len(case["case"]), case["case"]))
    return index


def counts(*arguments):
    """operator, cases that hold it and pass, cases that hold it."""
    passed, total = {}, {}
    for folder, results in zip(arguments[::2], arguments[1::2]):
        for line in open(results):
            case = json.loads(line)
            path = os.path.join(folder, case.get("case", ""), "model.onnx")
            if "case" not in case or not os.path.exists(path):
                continue
            found = set()
            operators(onnx.load(path, load_external_data=False).graph, found)
            for operator in found:
                total[operator] = total.get(operator, 0) + 1
                passed[operator] = passed.get(operator, 0) + (case["outcome"] == "passed")
    print("# operator, cases of ONNX's backend tests that hold it and pass, cases that hold it.")
    print("# Written by tests/make_conformance.py --counts.")
    for domain, op in sorted(total):
        print(f"{domain + '.' if domain else ''}{op} {passed[domain, op]} {total[domain, op]}")


def main(*arguments):
    if arguments[0] == "--counts":
        return counts(*arguments[1:])
    index = {}
    leave_out = failing(arguments[1::2])
    for folder, results in zip(arguments[::2], arguments[1::2]):
        for operator, entries in cases(folder, results, leave_out).items():
            index.setdefault(operator, entries)
    print("# operator (with its domain unless it is the default one), then cases of ONNX's backend tests that hold it.")
    print("# Written by tests/make_conformance.py.")
    for domain, op in sorted(index):
        names = [entry[-1] for entry in sorted(index[domain, op])[:3]]
        print(f"{domain + '.' if domain else ''}{op} {' '.join(names)}")


main(*sys.argv[1:])
