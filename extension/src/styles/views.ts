/** What only one view has. */

export const VIEWS = `
.tv-split { display: grid; grid-template-columns: minmax(220px, 290px) minmax(0, 1fr); gap: 12px; align-items: start; }
.tv-kernels { border: 1px solid var(--tv-line); border-radius: 5px; max-height: 640px; overflow: auto; }
.tv-kernelrow { display: grid; grid-template-columns: auto minmax(0, 1fr); gap: 1px 6px; padding: 5px 8px 6px; border-left: 3px solid transparent; border-bottom: 1px solid var(--tv-line); cursor: pointer; }
.tv-kernelrow:last-child { border-bottom: 0; }
.tv-kernelrow .tv-name { font: 600 12px var(--tv-code); overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.tv-kernelrow .tv-meter { grid-column: 1 / -1; }
.tv-marks { display: inline-flex; gap: 2px; }
.tv-kernelrow:hover, .tv-kernelrow.tv-hover { background: var(--tv-shade); }
.tv-kernelrow.tv-lit { background: var(--tv-lit); }
.tv-kernelrow.tv-current { border-left-color: var(--tv-accent); background: var(--tv-raised); }
.tv-kernelrow.tv-current.tv-lit { background: var(--tv-lit); }
.tv-kernelbody { display: flex; flex-direction: column; gap: 8px; min-width: 0; }
.tinyviz dl.tv-figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(128px, 1fr)); gap: 6px 14px; margin: 0; }
.tinyviz .tv-figure dt { color: var(--tv-faint); font-size: 11.5px; font-weight: 400; margin: 0; }
.tinyviz .tv-figure dd { margin: 0; font-weight: 600; font-size: 15px; font-variant-numeric: tabular-nums; line-height: 1.25; }
.tinyviz .tv-figure dd .tv-faint { display: block; font-weight: 400; font-size: 11px; }
.tv-schedulebox { display: flex; flex-wrap: wrap; align-items: baseline; gap: 4px 8px; font-size: 12px; }
.tinyviz ol.tv-schedule { display: flex; flex-wrap: wrap; gap: 4px; list-style: none; margin: 0; padding: 0; counter-reset: step; }
.tv-schedule li { counter-increment: step; border: 1px solid var(--tv-line); border-radius: 4px; padding: 0 6px; background: var(--tv-shade); }
.tv-schedule li::before { content: counter(step) " "; color: var(--tv-faint); font-size: 10px; }
.tinyviz code { font: 12px var(--tv-code); background: none; padding: 0; color: inherit; }
.tv-panes { display: grid; grid-template-columns: repeat(var(--panes, 3), minmax(0, 1fr)); gap: 8px; }
.tv-panes .tv-pane { height: clamp(260px, 52vh, 560px); }
@container (max-width: 1250px) { .tv-panes { grid-template-columns: repeat(2, minmax(0, 1fr)); } .tv-panes .tv-pane { height: 300px; } .tv-panes .tv-pane:only-child, .tv-panes .tv-pane:first-child:nth-last-child(odd) { grid-column: 1 / -1; height: 200px; } }
@container (max-width: 860px) { .tv-split { grid-template-columns: minmax(0, 1fr); } .tv-kernels { max-height: 190px; } .tv-legend { margin-left: 0; } .tv-counts { margin-left: 0; } }
`;
