/** Every view by the name that Python, TypeScript and CSS share. All but `outline` are pages of one explorer. */

import { explorer } from "./explorer";
import { outline } from "./outline";
import type { View } from "./view";

export const VIEWS: Readonly<Record<string, View<never>>> = {
  outline,
  explorer,
  overview: explorer,
  graph: explorer,
  stages: explorer,
  fusion: explorer,
  kernel: explorer,
  timeline: explorer,
  lines: explorer,
  memory: explorer,
  roofline: explorer,
  values: explorer,
  addresses: explorer,
  compare: explorer,
};
