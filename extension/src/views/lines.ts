import type { LinesData } from "../wire";
import type { Part } from "./view";
export const lines: Part<LinesData> = () => () => undefined;
