/** Text cut to a width, as it will be drawn: letters are measured once per font. */

const fonts = new Map<string, (letter: string) => number>();

/** Widths of letters in a CSS font ("600 12px Arial"); about right where nothing can measure. */
function measure(font: string): (letter: string) => number {
  let width = fonts.get(font);
  if (width) return width;
  const context = typeof document === "undefined" ? null : document.createElement("canvas").getContext("2d");
  const size = Number(/([\d.]+)px/.exec(font)?.[1] ?? 12);
  const known = new Map<string, number>();
  if (context) context.font = font;
  width = letter => {
    let found = known.get(letter);
    if (found === undefined) known.set(letter, (found = context ? context.measureText(letter).width : size * 0.62));
    return found;
  };
  fonts.set(font, width);
  return width;
}

/** At most `room` pixels wide; an ellipsis shows the cut. */
export function fit(text: string, room: number, font: string): string {
  const width = measure(font);
  const dots = width("…");
  let at = 0;
  let last = 0;
  let used = 0;
  for (const letter of text) {
    used += width(letter);
    if (used > room) return `${text.slice(0, last)}…`;
    at += letter.length;
    if (used + dots <= room) last = at;
  }
  return text;
}
