/** Every view by the name that Python, TypeScript and CSS share. */

import { outline } from "./outline";
import type { View } from "./view";

export const VIEWS: Readonly<Record<string, View<never>>> = {
  outline,
};
