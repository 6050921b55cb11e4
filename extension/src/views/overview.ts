import type { OverviewData } from "../wire";
import type { Part } from "./view";
export const overview: Part<OverviewData> = () => () => undefined;
