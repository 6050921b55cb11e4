import type { StagesData } from "../wire";
import type { Part } from "./view";
export const stages: Part<StagesData> = () => () => undefined;
