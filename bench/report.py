"""A run's result as people read it: a Markdown table, a plot, and what changed since the committed result of the same CPU."""
import json, math, os, re

COLUMNS = ["case", "ours ms", "best PyTorch ms (mode)", "ratio", "target", "minima", "MB ours / theirs", "ONNX Runtime ms"]
SLOWER = 0.93  # of the committed ratio: below is called slower; noise of a quiet machine is 2 to 4 %


def number(value):
    return "–" if value is None else f"{value:.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def table_row(c):
    if "error" in c:
        return [c["case"], "–", "–", "–", "", "", "", ""]
    memory = f"{number(c['ours_mb'])} / {number(c['best_mb'])}" if "ours_mb" in c else ""
    mark = "" if c["ratio"] >= c["target"] else " ✗"
    return [c["case"], number(c["ours_ms"]), f"{number(c['best_ms'])} ({c['best_mode']})", f"**{c['ratio']:.2f}**{mark}", f"{c['target']:.2f}",
            f"{c['min_ratio']:.2f}" if "min_ratio" in c else "", memory, number(c["runtime_ms"]) if "runtime_ms" in c else ""]


def table(result):
    rows = [COLUMNS, ["---"] * len(COLUMNS)] + [table_row(c) for c in result["cases"]]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    notes = [f"- {c['case']}: " + (c["error"].replace("|", "/") if "error" in c else c["meaning"])
             for c in result["cases"] if "error" in c or "meaning" in c]
    return "\n".join(lines + ([""] + notes if notes else []))


def heading(result):
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return f"{result['cpu']}, {result['threads']} threads, {result['date']}; {versions}"


def markdown(result):
    return f"{heading(result)}\n\n{table(result)}\n\n{compare(result)}\n"


# ---- against what is committed ----------------------------------------------------------------------------------------


def committed_path(result, folder):
    slug = re.sub(r"[^a-z0-9]+", "-", result["cpu"].lower()).strip("-")
    return os.path.join(folder, f"{slug}-{result['threads']}.json")


def like_with_like(now, old):
    """Both ratios to the best of those modes of PyTorch that both runs had: --quick leaves some out."""
    both = now.get("modes_ms", {}).keys() & old.get("modes_ms", {}).keys()
    if not both:
        return now["ratio"], old["ratio"]
    return tuple(c["ratio"] * min(c["modes_ms"][mode] for mode in both) / c["best_ms"] for c in (now, old))


def compare(result, folder=os.path.join(os.path.dirname(os.path.abspath(__file__)), "results")):
    path = committed_path(result, folder)
    if not os.path.exists(path):
        return f"No committed result of this CPU (bench/results/{os.path.basename(path)})."
    with open(path) as f:
        old = {c["case"]: c for c in json.load(f)["cases"] if "ratio" in c}
    lines = []
    for c in result["cases"]:
        if "ratio" in c and c["case"] in old:
            ratio, was = like_with_like(c, old[c["case"]])
            verdict = "slower" if ratio < SLOWER * was else "faster" if SLOWER * ratio > was else "as before"
            lines.append(f"- {c['case']}: {was:.2f} → {ratio:.2f}, {verdict}")
    return "\n".join(["Against the committed result:", "", *lines]) if lines else "The committed result has none of these cases."


# ---- plot ------------------------------------------------------------------------------------------------------------

WIDTH, ROW, LEFT, TOP, RIGHT = 860, 26, 230, 58, 70


def plot(result, path):
    """A bar a case on a logarithmic axis, which ratios are at home on; the target is a tick."""
    cases = [c for c in result["cases"] if "ratio" in c]
    values = [max(v, 0.05) for c in cases for v in (c["ratio"], c["target"])] + [0.7, 2]
    low, high = math.log2(min(values)) - 0.15, math.log2(max(values)) + 0.15

    def at(value):
        return LEFT + (WIDTH - LEFT - RIGHT) * (math.log2(max(value, 0.05)) - low) / (high - low)
    height = TOP + ROW * len(cases) + 34
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="13">',
           f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
           '<text x="12" y="22" font-size="15" font-weight="bold">How many times better than the best of PyTorch</text>',
           f'<text x="12" y="42" fill="#555">{escape(result["cpu"])}, {result["threads"]} threads; the tick is the target</text>']
    bottom = TOP + ROW * len(cases)
    for tick in (0.25, 0.5, 1, 2, 4, 8, 16, 32):
        if low <= math.log2(tick) <= high:
            out += [f'<line x1="{at(tick):.1f}" x2="{at(tick):.1f}" y1="{TOP - 4}" y2="{bottom}" stroke="{"#888" if tick == 1 else "#e4e4e4"}"/>',
                    f'<text x="{at(tick):.1f}" y="{bottom + 18}" text-anchor="middle" fill="#555">{tick:g}×</text>']
    for i, c in enumerate(cases):
        y, one, end = TOP + i * ROW, at(1), at(c["ratio"])
        left, width = min(one, end), abs(end - one)
        label = max(end, one if c["ratio"] < 1 else end, at(c["target"]) if c["target"] > 0 else 0)
        out += [f'<text x="{LEFT - 10}" y="{y + 14}" text-anchor="end">{c["case"]}</text>',
                f'<rect x="{left:.1f}" y="{y}" width="{max(width, 1):.1f}" height="18" fill="{"#2a9d6f" if c["ratio"] >= c["target"] else "#d9822b"}"/>',
                f'<text x="{label + 7:.1f}" y="{y + 14}">{c["ratio"]:.2f}</text>']
        if c["target"] > 0:
            out.append(f'<line x1="{at(c["target"]):.1f}" x2="{at(c["target"]):.1f}" y1="{y - 3}" y2="{y + 21}" stroke="#222" stroke-width="2"/>')
    with open(path, "w") as f:
        f.write("\n".join(out + ["</svg>"]) + "\n")


def escape(text):
    return text.replace("&", "&amp;").replace("<", "&lt;")
