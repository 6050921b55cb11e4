/** Numbers as people read them; `tinyviz` formats the same way in Python. */

const SECONDS: [number, string][] = [[1, "s"], [1e-3, "ms"], [1e-6, "µs"], [1e-9, "ns"]];
const BYTES: [number, string][] = [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"], [1, "B"]];
const COUNTS: [number, string][] = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""]];

/** What was not measured is shown as missing, never as 0. */
export const MISSING = "–";

export const seconds = (value?: number | null): string => scaled(value, SECONDS);
export const bytes = (value?: number | null): string => scaled(value, BYTES);
export const count = (value?: number | null): string => scaled(value, COUNTS);

/** How many there are, with the word for one of them in its plural where it needs it: 1 launch, 2 launches. */
export const some = (n: number, word: string): string => `${n} ${word}${n === 1 ? "" : word.endsWith("ch") ? "es" : "s"}`;

/** A number in the unit of a wire field: s, bytes, flops, or none. */
export function amount(value: number | null | undefined, unit: string): string {
  return unit === "s" ? seconds(value) : unit === "bytes" ? bytes(value) : count(value);
}

/** A share of 1. */
export function percent(value?: number | null): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return MISSING;
  return `${value >= 0.0995 || value === 0 ? Math.round(100 * value) : (100 * value).toFixed(1)} %`;
}

/** The sum, or null when any part is missing: half a sum is a made-up number. */
export function total(values: readonly (number | null | undefined)[]): number | null {
  return values.reduce<number | null>((sum, value) => (sum === null || value === null || value === undefined ? null : sum + value), 0);
}

function scaled(value: number | null | undefined, units: [number, string][]): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return MISSING;
  const [size, unit] = units.find(([size]) => Math.abs(value) >= size * 0.9995) ?? units[units.length - 1]!;
  return `${three(value / size)}${unit === "" ? "" : " "}${unit}`;
}

/** Three significant digits, no exponent; whole numbers stay whole. */
function three(value: number): string {
  if (Number.isInteger(value) && Math.abs(value) < 1000) return String(value);
  return value.toFixed(Math.min(Math.max(2 - Math.floor(Math.log10(Math.abs(Number(value.toPrecision(3))))), 0), 3));
}
