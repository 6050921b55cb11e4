/** Graphs: boxes, frames, edges, and the small map. */

export const DRAWING = `
.tv-picture { position: relative; height: var(--tv-height, clamp(380px, 62vh, 700px)); border: 1px solid var(--tv-line); border-radius: 5px; overflow: hidden; cursor: grab; touch-action: none; background: radial-gradient(color-mix(in srgb, var(--tv-ink) 9%, transparent) 1px, transparent 1px) 0 0 / 22px 22px; }
.tv-picture.tv-pointing { cursor: pointer; }
.tv-picture.tv-dragging { cursor: grabbing; }
.tv-drawing { position: absolute; inset: 0; width: 100%; height: 100%; display: block; user-select: none; }
.tv-graphpath { display: flex; flex-wrap: wrap; gap: 2px 6px; min-height: 18px; font-size: 12px; }
.tv-graphnote:empty { display: none; }
.tv-minimap { position: absolute; right: 8px; bottom: 8px; background: var(--tv-back); border: 1px solid var(--tv-line); border-radius: 4px; color: var(--tv-faint); outline-color: var(--tv-accent); cursor: crosshair; }
.tv-drawing text { font-family: var(--tv-font); fill: var(--tv-ink); pointer-events: none; }
.tv-body { fill: var(--tv-back); stroke: var(--c, var(--tv-line)); stroke-width: 1.3; }
.tv-box[data-shape="move"] .tv-body { fill: var(--tv-shade); stroke-dasharray: 5 3; }
.tv-box[data-shape="group"] .tv-body { fill: var(--tv-raised); stroke-width: 2; }
.tv-root { fill: none; stroke: var(--c, var(--tv-line)); stroke-width: 1; }
.tv-letter rect { fill: var(--c); }
.tv-drawing .tv-letter text { font-size: 10px; font-weight: 700; text-anchor: middle; fill: var(--tv-back); }
.tv-name { font-size: 12px; font-weight: 600; }
.tv-drawing .tv-small { font-size: 11px; fill: var(--tv-faint); font-variant-numeric: tabular-nums; }
.tv-bar { fill: var(--c, var(--tv-faint)); }
.tv-far text { visibility: hidden; }
.tv-far .tv-body { fill: color-mix(in srgb, var(--c, var(--tv-line)) 35%, var(--tv-back)); }
.tv-frame rect { fill: color-mix(in srgb, var(--tv-ink) 3.5%, transparent); stroke: color-mix(in srgb, var(--tv-ink) 38%, transparent); stroke-width: 1; stroke-dasharray: 4 3; }
.tv-drawing .tv-frame text { font-size: 11.5px; font-weight: 600; fill: var(--tv-faint); }
.tv-far .tv-frame text { visibility: visible; font-size: 20px !important; }
.tv-edge { fill: none; stroke: var(--tv-faint); stroke-width: 1.1; opacity: .65; }
.tv-edge[data-kind="stub"] { stroke-dasharray: 2 2; }
.tv-edge[data-kind="inline"] { stroke: var(--tv-c-inline); stroke-width: 1.6; opacity: .9; }
.tv-edge[data-kind="at loop"] { stroke: var(--tv-c-at-loop); stroke-width: 2; stroke-dasharray: 7 4; opacity: 1; }
.tv-edge[data-kind="whole"] { stroke: var(--tv-c-whole); stroke-width: 3; opacity: .9; }
.tv-edge.tv-long { opacity: .22; }
.tv-tip { fill: var(--tv-faint); }
.tv-tip-lit { fill: var(--tv-accent); }
.tv-some .tv-box:not(.tv-lit), .tv-search .tv-box:not(.tv-found):not(.tv-lit) { opacity: .5; }
.tv-some .tv-edge:not(.tv-lit) { opacity: .28; }
.tv-box.tv-hover .tv-body { stroke-width: 2.4; }
.tv-box.tv-lit .tv-body { fill: var(--tv-lit); stroke-width: 2.4; }
.tv-box.tv-sel .tv-body { stroke: var(--tv-accent); stroke-width: 4; }
.tv-box.tv-found .tv-body { stroke: var(--tv-accent); stroke-width: 3; stroke-dasharray: none; }
.tv-edge.tv-hover { stroke-width: 3; opacity: 1; }
.tv-edge.tv-lit { stroke: var(--tv-accent); stroke-width: 2.4; opacity: 1; }
.tv-box[data-change="new"] .tv-body { stroke: var(--tv-c-new); stroke-width: 3.5; }
.tv-box[data-change="removed"] .tv-body { stroke: var(--tv-c-removed); stroke-width: 3.5; stroke-dasharray: 3 3; }
.tv-box[data-change="removed"] .tv-name { text-decoration: line-through; }
`;
