import type { TimelineData } from "../wire";
import type { Part } from "./view";
export const timeline: Part<TimelineData> = () => () => undefined;
