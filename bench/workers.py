"""Processes that bench/run measures: started, asked, waited for. Only one works at a time; the others sleep on a pipe.

A Worker speaks bench_step.c's protocol. What it does while it is not asked is watched: a pool of threads that spins on would
slow the other side, so its processor time between turns is counted (`idle`, a part of one processor).
"""
import os, select, subprocess, time

TICKS = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """One line on why something could not be measured."""


def processor_seconds(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            fields = f.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS
    except OSError:
        return 0.0


def last_line(path):
    with open(path, errors="replace") as f:
        lines = [line.strip() for line in f if line.strip()]
    return lines[-1][:200] if lines else "no message"


def environment(context):
    return {**os.environ, "OMP_NUM_THREADS": str(context.threads), "TORCHINDUCTOR_CACHE_DIR": os.path.join(context.nets, "inductor")}


class Worker:
    def __init__(self, context, name, command, limit=1200):
        self.name, self.limit, self.log = name, limit, os.path.join(context.nets, f"{name.replace(' ', '_')}.log")
        self.times, self.first, self.peak_kb, self.faults = [], None, 0, 0
        self.idle_seconds, self.idle_processor, self.rest = 0.0, 0.0, None
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, bufsize=1,
                                            cwd=context.here, env=environment(context))
        self.ready = self.answer()

    def answer(self):
        if not select.select([self.process.stdout], [], [], self.limit)[0]:
            self.kill()
            raise Failed(f"no answer in {self.limit} s")
        line = self.process.stdout.readline()
        if not line:
            status = self.process.wait(timeout=60)  # it has closed its output: it ends
            self.kill()
            raise Failed(f"{last_line(self.log)} (status {status})")
        self.rest = time.monotonic(), processor_seconds(self.process.pid)
        return line.strip()

    def ask(self, text):
        now, used = time.monotonic(), processor_seconds(self.process.pid)
        self.idle_seconds += now - self.rest[0]
        self.idle_processor += used - self.rest[1]
        try:
            self.process.stdin.write(text + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise Failed(last_line(self.log)) from None
        return self.answer()

    @property
    def idle(self):
        return self.idle_processor / self.idle_seconds if self.idle_seconds > 1 else 0.0

    def step(self, n, keep=True):
        words = self.ask(f"step {n}").split()
        if keep:
            self.times += [float(word) for word in words[:n]]
        return float(words[-1])

    def memory(self):
        self.peak_kb, self.faults = (int(word) for word in self.ask("memory").split())
        return self.peak_kb

    def close(self):
        if self.process.poll() is not None:
            return
        try:
            self.process.stdin.write("quit\n")
            self.process.stdin.close()
            self.process.wait(timeout=60)
        except (OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def kill(self):
        if not self.process.stdout.closed:
            self.process.kill()
            self.process.communicate()  # what is left in the pipes, and their end


def run_once(context, name, command, text="", limit=3600):
    """One whole process: (milliseconds, what it wrote to stdout)."""
    log = os.path.join(context.nets, f"{name}.log")
    begin = time.perf_counter()
    with open(log, "w") as errors:
        try:
            done = subprocess.run(command, input=text, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=context.here,
                                  env=environment(context), timeout=limit)
        except subprocess.TimeoutExpired:
            raise Failed(f"{name}: not done in {limit} s") from None
    took = (time.perf_counter() - begin) * 1e3
    if done.returncode != 0:
        raise Failed(f"{name}: {last_line(log)} (status {done.returncode})")
    return took, done.stdout
