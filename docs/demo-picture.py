#!/usr/bin/env python3
"""demo-picture.py: a terminal's lines with ANSI colours on stdin, an SVG on stdout.

How docs/demo.svg was made:

    tmux new-session -d -s demo -x 80 -y 200 './dev demo; sleep 600'
    tmux capture-pane -e -p -t demo | docs/demo-picture.py --from 'Now orders' > docs/demo.svg

docs/status.svg likewise, of `skald status --watch` while a test kills one of three brokers.
Standard library only.
"""

import argparse
import re
import sys
from xml.sax.saxutils import escape

CELL, LINE, SIZE, MARGIN = 8.0, 18, 13.3, 14
INK, PAPER, FAINT = "#d8dee9", "#1d2129", "#7b8494"
COLOURS = {31: "#e06c75", 32: "#98c379", 33: "#e5c07b", 34: "#61afef", 35: "#c678dd",
           36: "#56b6c2", 37: INK, 90: FAINT}


class Pen:
    """The style in hand; it lasts over the ends of lines."""

    def __init__(self):
        self.colour, self.is_bold, self.is_faint = None, False, False

    def take(self, code):
        if code in (0, 39):
            self.colour = None
        if code in (0, 22):
            self.is_bold = self.is_faint = False
        self.is_bold |= code == 1
        self.is_faint |= code == 2
        if code in COLOURS:
            self.colour = code

    def attributes(self):
        fill = FAINT if self.is_faint else COLOURS.get(self.colour, INK)
        return ("" if fill == INK else ' fill="%s"' % fill) + (
            ' font-weight="bold"' if self.is_bold else "")


def runs(line, pen):
    """(column, text, attributes) of each stretch in one style."""
    column, found = 0, []
    for part in re.split(r"(\x1b\[[0-9;]*m)", line):
        codes = re.fullmatch(r"\x1b\[([0-9;]*)m", part)
        if codes:
            for code in codes.group(1).split(";"):
                pen.take(int(code or 0))
            continue
        # a gap of two spaces parts: not every reader of SVG keeps it
        found += [(column + m.start(), m.group(), pen.attributes())
                  for m in re.finditer(r"\S+(?: \S+)*", part)]
        column += len(part)
    return found


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--from", dest="first", default="", help="begin at the line with this text")
    args = p.parse_args()
    pen, lines = Pen(), sys.stdin.read().rstrip().split("\n")
    while lines and args.first not in lines[0]:
        runs(lines.pop(0), pen)
    if not lines:
        sys.exit("demo-picture: no line has %r" % args.first)
    width, height = 80 * CELL + 2 * MARGIN, len(lines) * LINE + 2 * MARGIN
    print('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" width="%g">'
          % (width, height, width))
    print('<rect width="100%%" height="100%%" rx="8" fill="%s"/>' % PAPER)
    print('<g font-family="ui-monospace,Menlo,Consolas,DejaVu Sans Mono,monospace"'
          ' font-size="%g" fill="%s">' % (SIZE, INK))
    for row, line in enumerate(lines):
        for column, text, style in runs(line, pen):
            print('<text x="%g" y="%g" textLength="%g"%s>%s</text>' % (
                MARGIN + column * CELL, MARGIN + (row + 0.75) * LINE, len(text) * CELL,
                style, escape(text)))
    print("</g>\n</svg>")


if __name__ == "__main__":
    main()
