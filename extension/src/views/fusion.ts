import type { FusionData } from "../wire";
import type { Part } from "./view";
export const fusion: Part<FusionData> = () => () => undefined;
