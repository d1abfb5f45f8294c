#!/usr/bin/env python3
"""Writes tests/conformance/cases.txt: for each operator, cases of the ONNX backend node tests that contain it and pass.

    regraft run --suite NODE_TESTS --json > results.jsonl
    python tests/make_conformance.py NODE_TESTS results.jsonl [FOLDER results.jsonl] > tests/conformance/cases.txt

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


def cases(folder, results):
    index = {}
    for line in open(results):
        case = json.loads(line)
        if case.get("outcome") != "passed":
            continue
        model = onnx.load(os.path.join(folder, case["case"], "model.onnx"))
        found = set()
        operators(model.graph, found)
        opset = max(o.version for o in model.opset_import)
        for operator in found:
            index.setdefault(operator, []).append((len(found), -opset, len(case["case"]), case["case"]))
    return index


def main(*arguments):
    index = {}
    for folder, results in zip(arguments[::2], arguments[1::2]):
        for operator, entries in cases(folder, results).items():
            index.setdefault(operator, entries)
    print("# operator (with its domain unless it is the default one), then cases of ONNX's backend tests that hold it.")
    print("# Written by tests/make_conformance.py.")
    for domain, op in sorted(index):
        names = [entry[-1] for entry in sorted(index[domain, op])[:3]]
        print(f"{domain + '.' if domain else ''}{op} {' '.join(names)}")


main(*sys.argv[1:])
