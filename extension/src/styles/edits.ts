/** What-ifs, the schedule editor, the tuner's landscape and the iteration space. */

export const EDITS = `
.tv-whatif { display: flex; flex-direction: column; gap: 6px; border-top: 1px solid var(--tv-line); padding-top: 8px; margin-top: 4px; }
.tv-outcome { display: flex; flex-direction: column; gap: 6px; font-size: 12.5px; min-width: 0; }
.tv-outcome p, .tv-tryanswer p, .tv-editor p { margin: 0; }
.tv-problem { color: var(--tv-error); margin: 2px 0 0; font-size: 12px; }
.tv-pinline { display: flex; flex-wrap: wrap; align-items: center; gap: 4px 8px; font-size: 12px; }
.tinyviz code.tv-pin { background: var(--tv-shade); border: 1px solid var(--tv-line); border-radius: 4px; padding: 2px 6px; overflow-wrap: anywhere; user-select: all; }
.tv-stripplace { max-width: 520px; }
.tv-strip { width: 100%; height: auto; font-size: 11px; fill: var(--tv-ink); }
.tv-stripbar { fill: var(--tv-accent); opacity: .25; }
.tv-striptick { stroke: var(--tv-ink); opacity: .45; stroke-width: 1; }
.tv-stripmedian { stroke: var(--tv-accent); stroke-width: 2.5; }
.tv-stripscale, .tv-axis { fill: var(--tv-faint); font-size: 10.5px; }
.tv-editor { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr)); gap: 8px 20px; border: 1px solid var(--tv-line); border-radius: 5px; padding: 8px 10px; font-size: 12px; }
.tinyviz ol.tv-lines { list-style: decimal inside; margin: 4px 0; padding: 0; display: flex; flex-direction: column; gap: 3px; }
.tv-lines li::marker { color: var(--tv-faint); font-size: 10px; }
.tv-editrow { display: inline-flex; gap: 3px; width: calc(100% - 26px); }
.tv-editrow .tv-input { flex: 1; min-width: 0; font: 12px var(--tv-code); }
.tv-editrow .tv-button { padding: 1px 6px; }
.tinyviz ol.tv-trail { list-style: none; margin: 4px 0; padding: 0; max-height: 170px; overflow: auto; }
.tv-trail li { display: grid; grid-template-columns: auto 84px minmax(0, 1fr); gap: 8px; align-items: center; padding: 2px 0; }
.tv-trail code { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.tv-trailtime { text-align: right; font-variant-numeric: tabular-nums; }
.tv-tryanswer { display: flex; flex-direction: column; gap: 6px; min-height: 24px; }
.tv-section { border: 1px solid var(--tv-line); border-radius: 5px; font-size: 12px; }
.tv-section > summary { cursor: pointer; padding: 4px 10px; font-weight: 600; background: var(--tv-raised); border-radius: 5px; }
.tv-section > summary .tv-faint { font-weight: 400; }
.tv-sectionbody { padding: 8px 10px; display: flex; flex-direction: column; gap: 6px; }
.tv-landscape { width: 100%; max-width: 900px; height: auto; }
.tv-grid { stroke: var(--tv-line); }
.tv-best { fill: none; stroke: var(--tv-accent); stroke-width: 2; }
.tv-spread { stroke: var(--tv-faint); stroke-width: 1.5; }
.tv-attempt circle { fill: var(--tv-back); stroke: var(--tv-ink); stroke-width: 1.2; }
.tv-attempt text { font: 600 10px var(--tv-code); fill: var(--tv-ink); }
.tv-attempt[role] { cursor: pointer; }
.tv-attempt[data-verdict="faster"] circle { fill: var(--tv-lit); stroke: var(--tv-accent); stroke-width: 2; }
.tv-attempt[data-verdict="default"] circle { fill: var(--tv-raised); stroke-width: 2.2; }
.tv-attempt[data-verdict="wrong"] circle, .tv-attempt[data-verdict="failed"] circle { stroke: var(--tv-error); stroke-dasharray: 3 2; }
.tv-attempt:focus-visible { outline: 2px solid var(--tv-accent); }
.tv-spacebody { display: grid; grid-template-columns: minmax(230px, 330px) minmax(0, 1fr); gap: 8px 18px; align-items: start; }
.tv-loops { display: flex; flex-direction: column; gap: 3px; }
.tv-loop { display: grid; grid-template-columns: 104px auto minmax(60px, 1.4fr) auto 52px auto; gap: 4px; align-items: center; }
.tv-loop code { white-space: pre; }
.tv-loop .tv-slider { width: 100%; min-width: 0; margin: 0; }
.tv-loop .tv-button { padding: 0 6px; min-height: 20px; }
.tv-loopvalue { font: 12px var(--tv-code); text-align: right; }
.tv-buffers { display: flex; flex-wrap: wrap; gap: 10px 18px; }
.tinyviz figure.tv-buffer { margin: 0; max-width: 100%; min-width: 0; }
.tv-buffer figcaption { color: var(--tv-faint); font-size: 11.5px; }
.tv-bufferpicture { display: block; max-width: 100%; height: auto; margin: 2px 0; }
.tv-buffergrid { fill: var(--tv-back); stroke: var(--tv-faint); }
.tv-bufferlines { stroke: var(--tv-line); fill: none; }
.tv-cellread { fill: var(--tv-c-inline, #0072b2); }
.tv-cellwrite { fill: var(--tv-c-backward, #e69f00); }
.tinyviz[data-ground="dark"] .tv-cellread { fill: var(--tv-c-inline, #56b4e9); }
.tv-cellcross { stroke: #000; stroke-width: 1.3; }
.tv-cellkey { width: 12px; height: 12px; vertical-align: -2px; }
@container (max-width: 1280px) { .tv-spacebody { grid-template-columns: minmax(0, 1fr); } }
.tv-ablation, .tv-ablationplace { display: flex; flex-direction: column; gap: 6px; min-width: 0; font-size: 12.5px; }
.tv-ablation { border: 1px solid var(--tv-line); border-radius: 5px; padding: 8px 10px; }
.tv-ablation p, .tv-bisection { margin: 0; font-size: 12.5px; }
.tv-recompute { display: flex; flex-direction: column; gap: 6px; margin-top: 8px; font-size: 12.5px; min-width: 0; }
.tv-againlist { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 250px), 1fr)); gap: 2px 18px; max-height: 190px; overflow: auto; }
.tv-againrow { display: grid; grid-template-columns: 64px 76px minmax(0, 1fr); gap: 8px; align-items: center; }
.tv-againrow > span { text-align: right; font-variant-numeric: tabular-nums; }
.tv-again { display: inline-flex; gap: 5px; align-items: center; font-size: 12.5px; }
tr.tv-insidenoise > td { color: var(--tv-faint); }
.tv-cost { color: var(--tv-faint); font-size: 11px; text-align: right; padding: 2px 10px 4px; }
.tv-track .tv-launch path.tv-whisker { fill: none; stroke: var(--tv-ink); stroke-width: 1.4; opacity: .8; pointer-events: none; }
.tv-asking { font-size: 12px; }
.tv-asking code { overflow-wrap: anywhere; }
.tv-fold { width: 18px; padding: 0; }
tr.tv-under > td:first-child { padding-left: 26px; }
tr[data-agrees="true"] > td, tr[data-agrees="missing"] > td { color: var(--tv-faint); }
.tv-panenote { border-top: 1px solid var(--tv-line); background: var(--tv-shade); font-size: 11.5px; padding: 2px 8px; min-height: 36px; }
.tv-editnote { font-size: 12px; color: var(--tv-linkink); font-weight: 600; }
`;
