#!/usr/bin/env python3
"""bench/run's own arithmetic, on programs that only pretend to compute: what counts, what is refused, what is printed."""
import os, sys, tempfile, types, unittest, xml.dom.minidom

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "bench"))
import cases, processes, report, stepping
from workers import Failed, Worker

# milliseconds a step, first loss, peak kilobytes; `spin`: busy while it waits
FAKE = """
import sys, threading
ms, loss, kb, spin = sys.argv[1:5]
if spin == "spin":
    def burn():
        while True: pass
    threading.Thread(target=burn, daemon=True).start()
print("ready", flush=True)
for line in sys.stdin:
    words = line.split()
    if words[0] == "step":
        if ms == "dies": sys.exit("no such operator")
        print(*[ms] * int(words[1]), "loss", loss, flush=True)
    elif words[0] == "memory": print(kb, 7, flush=True)
    else: break
"""


def fake(ms, loss="1.0", kb="1000", spin="no"):
    return [sys.executable, "-c", FAKE, str(ms), str(loss), str(kb), spin]


class BenchTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.said = []
        self.context = types.SimpleNamespace(threads=1, build="", nets=self.folder.name, here=self.folder.name, python="", ort_python="",
                                             log=self.said.append)
        with open(os.path.join(self.folder.name, "shapes.txt"), "w") as f:
            f.write("input_0 float32 16 3\n")
        self.sides = {}
        self.saved = {name: getattr(stepping, name) for name in ("export", "our_command", "torch_command")}
        stepping.export = lambda context, net: self.folder.name
        stepping.our_command = lambda context, case, folder, *keys: self.sides["budget" if keys else "ours"]
        stepping.torch_command = lambda context, case, mode: self.sides[mode]

    def tearDown(self):
        for name, function in self.saved.items():
            setattr(stepping, name, function)
        self.folder.cleanup()

    def measure(self, modes=("eager", "compile"), case=cases.step("x", 1.5, runtime=False)):
        return stepping.measure_step(self.context, case, 2, modes, False)[0]

    def test_the_fastest_mode_counts(self):
        self.sides = {"ours": fake(5), "eager": fake(20), "compile": fake(10)}
        row = self.measure()
        self.assertEqual((row["ratio"], row["best_mode"], row["batch"]), (2.0, "compile", 16))
        self.assertEqual(row["modes_ms"], {"eager": 20, "compile": 10})

    def test_a_mode_with_another_first_loss_does_not_count(self):
        self.sides = {"ours": fake(5), "eager": fake(20, 1.0005), "compile": fake(1, 1.002)}
        self.assertEqual(self.measure()["best_mode"], "eager")
        self.assertTrue(any("first loss" in text for text in self.said))

    def test_there_is_no_ratio_when_no_first_loss_agrees(self):
        self.sides = {"ours": fake(5), "eager": fake(20, 1.002), "compile": fake(1, "nan")}
        with self.assertRaisesRegex(Failed, "first losses differ"):
            self.measure()

    def test_bf16_may_differ_more(self):
        self.sides = {"ours": fake(5), "eager": fake(20, 1.015)}
        self.assertEqual(self.measure(("eager",), cases.step("x", 1.0, precision="bf16"))["ratio"], 4.0)

    def test_a_mode_that_dies_is_left_out_and_named(self):
        self.sides = {"ours": fake(5), "eager": fake(20), "compile": fake("dies")}
        self.assertEqual(self.measure()["best_mode"], "eager")
        self.assertIn("no such operator", self.said[0])

    def test_when_ours_dies_that_is_the_reason(self):
        self.sides = {"ours": fake("dies"), "eager": fake(20)}
        with self.assertRaisesRegex(Failed, "Regraft: no such operator"):
            self.measure(("eager",))

    def test_a_side_that_spins_while_it_waits_is_seen(self):
        worker = Worker(self.context, "spinner", fake(5, spin="spin"))
        worker.rest = (worker.rest[0] - 10, worker.rest[1] - 5)  # as if it had burnt half a processor for ten seconds
        worker.step(1)
        worker.close()
        self.assertGreater(worker.idle, 0.4)

    def test_memory_is_compared_with_the_smallest_and_a_budget_costs_time(self):
        self.sides = {"ours": fake(10, kb=500), "eager": fake(20, kb=1000), "compile": fake(20, kb=2000), "budget": fake(12.5, kb=250)}
        case = cases.Case("m", "memory", "x", 1.25)
        plain, small, step = stepping.measure_memory(self.context, case, 2, ("eager", "compile"), False)
        self.assertEqual((plain["ratio"], small["ratio"], step["ratio"]), (2.0, 4.0, 0.8))

    def test_a_budget_that_cannot_be_had_is_an_error_row(self):
        self.sides = {"ours": fake(10), "eager": fake(20), "budget": fake("dies")}
        rows = stepping.measure_memory(self.context, cases.Case("m", "memory", "x", 1.25), 1, ("eager",), False)
        self.assertEqual(["error" in row for row in rows], [False, True, True])

    def test_whole_processes_take_turns_after_one_that_does_not_count(self):
        order = []
        sides = {stepping.OURS: lambda: (order.append("a") or len(order), 0), "theirs": lambda: (order.append("b") or 10, 0)}
        times, _ = processes.take_turns(self.context, cases.BY_NAME["import"], 2, sides)
        self.assertEqual("".join(order), "ababab")
        self.assertEqual(times[stepping.OURS], [3, 5])


class ReportTest(unittest.TestCase):
    def result(self, ratio):
        row = {"case": "x", "ratio": ratio, "target": 1.5, "ours_ms": 10.0, "best_ms": 10 * ratio, "best_mode": "eager"}
        return {"cpu": "A <CPU>", "threads": 2, "date": "2026-01-01", "versions": {}, "cases": [row, {"case": "y", "error": "no|way"}]}

    def test_a_missed_target_is_marked_and_an_error_is_a_line(self):
        self.assertIn("**1.40** ✗", report.table(self.result(1.4)))
        self.assertNotIn("✗", report.table(self.result(1.5)))
        self.assertIn("no/way", report.table(self.result(1.5)))

    def test_a_slowdown_shows_against_the_committed_result(self):
        import json
        with tempfile.TemporaryDirectory() as folder:
            self.assertIn("No committed result", report.compare(self.result(2.0), folder))
            with open(report.committed_path(self.result(2.0), folder), "w") as f:
                json.dump(self.result(2.0), f)
            self.assertIn("2.00 → 1.80, slower", report.compare(self.result(1.8), folder))
            self.assertIn("as before", report.compare(self.result(1.95), folder))

    def test_the_plot_is_well_formed(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "plot.svg")
            report.plot(self.result(0.5), path)
            self.assertEqual(len(xml.dom.minidom.parse(path).getElementsByTagName("rect")), 2)


if __name__ == "__main__":
    unittest.main()
