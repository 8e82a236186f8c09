"""What a bench found, as a table of 80 columns or as JSON lines."""

import json
import statistics

WIDTH = 80


def number(x):
    """Four figures at least, with thousands apart."""
    if abs(x) >= 100:
        return f"{x:,.0f}"
    return f"{x:.1f}" if abs(x) >= 10 else f"{x:.2f}"


class Run:
    """One thing measured several times: rates (or milliseconds), CPU per item, memory."""

    def __init__(self, bench, name, title, unit, values, usage=None, per="row"):
        self.bench, self.name, self.title, self.unit = bench, name, title, unit
        self.values, self.usage, self.per = list(values), usage, per

    @property
    def median(self):
        return statistics.median(self.values)

    def json(self):
        out = {"bench": self.bench, "kind": "run", "name": self.name, "title": self.title,
               "unit": self.unit, "median": round(self.median, 3),
               "min": round(min(self.values), 3), "max": round(max(self.values), 3),
               "rounds": len(self.values)}
        if self.usage:
            out["cpu_us_per_" + self.per] = rounded(self.usage.us_per_item())
            out["cpu_s"] = rounded(self.usage.cpu_s())
            out["rss_mb"] = rounded(self.usage.rss_mb())
        return out

    def lines(self):
        spread = f"({number(min(self.values))}-{number(max(self.values))})"
        yield f"  {self.title:<43.43} {number(self.median):>9} {self.unit:<6} {spread}"
        if self.usage:
            yield from wrap(f"      CPU us a {self.per}: ",
                            named(self.usage.us_per_item(), "{:.1f}"))
            yield from wrap("      CPU s: ", named(self.usage.cpu_s(), "{:.2f}"),
                            "RSS MB: " + ", ".join(named(self.usage.rss_mb(), "{:.0f}")))


def where(run):
    """Where the time of one item goes, for a target that was missed."""
    used = run.usage.us_per_item()
    wall = 1e6 / run.median
    busiest = max(used, key=used.get)
    return (f"A {run.per} takes {wall:.1f} us of wall clock; CPU of it: "
            + ", ".join(named(used, "{:.1f}"))
            + f" us. Most is {busiest}'s; what the parts do not overlap is waiting for each "
            "other and for the disk.")


class Verdict:
    """A figure beside its baseline, measured in the same rounds."""

    def __init__(self, name, title, figure, baseline, ratios, target=None, at_most=False,
                 unit="x", why="", or_else=None):
        self.bench, self.name, self.title = figure.bench, name, title
        self.figure, self.baseline, self.ratios = figure, baseline, list(ratios)
        self.target, self.at_most, self.unit, self.why = target, at_most, unit, why
        self.or_else = or_else  # or the figure itself is at least this

    @property
    def ratio(self):
        return statistics.median(self.ratios)

    @property
    def met(self):
        """None: there is no target."""
        if self.target is None:
            return None
        if self.or_else and self.figure.median >= self.or_else:
            return True
        return self.ratio <= self.target if self.at_most else self.ratio >= self.target

    def cpu_ratio(self):
        """CPU of all processes for one item, figure's to baseline's."""
        if not (self.figure.usage and self.baseline.usage):
            return None
        mine, base = (sum(r.usage.us_per_item().values())
                      for r in (self.figure, self.baseline))
        return round(mine / base, 3) if base else None

    def json(self):
        return {"bench": self.bench, "kind": "verdict", "name": self.name,
                "cpu_ratio": self.cpu_ratio(),
                "title": self.title, "figure": round(self.figure.median, 3),
                "baseline": round(self.baseline.median, 3), "unit": self.figure.unit,
                "ratio": round(self.ratio, 3), "ratio_unit": self.unit,
                "ratio_min": round(min(self.ratios), 3),
                "ratio_max": round(max(self.ratios), 3), "target": self.target,
                "rule": None if self.target is None else
                ("at most" if self.at_most else "at least"), "or_figure": self.or_else,
                "met": self.met, "why": self.why or None}

    def lines(self):
        unit = "x" if self.unit == "x" else " " + self.unit
        form = "{:.1f}" if self.unit in ("%", "MB") else "{:.2f}"
        spread = f"({form.format(min(self.ratios))}-{form.format(max(self.ratios))})"
        rule, word = "", "no target"
        if self.target is not None:
            rule = f"{'<=' if self.at_most else '>='} {self.target:g}{unit}"
            if self.or_else:
                rule += f" or {self.or_else:,}"
            word = "met" if self.met else "NOT MET"
        text = f"{form.format(self.ratio)}{unit}"
        yield f"  {self.title:<36.36} {text:>8} {spread:<13} {rule:<8} {word}"
        if self.met is False and self.why:
            yield from wrap("      ", self.why.split(), joint=" ")


def rounded(d):
    return {k: round(v, 3) for k, v in d.items()}


def named(d, form):
    return [f"{k} {form.format(v)}" for k, v in d.items()]


def wrap(head, parts, tail="", joint=", "):
    """head part, part, ...; tail, folded at 80 columns under the head."""
    line, indent = head, " " * len(head)
    for i, part in enumerate(parts):
        piece = part + (joint if i + 1 < len(parts) else "")
        if len(line) + len(piece.rstrip()) > WIDTH and line.strip():
            yield line.rstrip()
            line = indent
        line += piece
    if tail and len(line) + len(tail) + 2 <= WIDTH:
        line, tail = line + "; " + tail, ""
    yield line.rstrip()
    if tail:
        yield " " * 6 + tail


class Report:
    def __init__(self, as_json, out):
        self.as_json, self.out, self.verdicts = as_json, out, []

    def _print(self, text):
        print(text, file=self.out, flush=True)

    def head(self, bench, facts):
        if self.as_json:
            self._print(json.dumps({"bench": bench, "kind": "setup", **facts}))
            return
        self._print("")
        for line in wrap(f"{bench}: ", [f"{k} {v}" for k, v in facts.items()]):
            self._print(line)

    def note(self, bench, text):
        if self.as_json:
            self._print(json.dumps({"bench": bench, "kind": "note", "text": text}))
            return
        for line in wrap("  ", text.split(), joint=" "):
            self._print(line)

    def add(self, *lines):
        for line in lines:
            if isinstance(line, Verdict):
                self.verdicts.append(line)
            if self.as_json:
                self._print(json.dumps(line.json()))
            else:
                for text in line.lines():
                    self._print(text)

    def close(self, seconds):
        """The last line; True when no target was missed."""
        aimed = [v for v in self.verdicts if v.met is not None]
        met = sum(1 for v in aimed if v.met)
        missed = [v.name for v in aimed if not v.met]
        if self.as_json:
            self._print(json.dumps({"bench": "all", "kind": "end", "targets": len(aimed),
                                    "met": met, "missed": missed,
                                    "seconds": round(seconds, 1)}))
        else:
            self._print("")
            text = f"bench: {met} of {len(aimed)} targets met in {seconds:.0f} s"
            self._print(text + (": not " + ", ".join(missed) if missed else ""))
        return not missed
