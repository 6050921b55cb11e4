/** The explorer's shell: tabs, the bar of what is selected, and what stands above each view. */

export const SHELL = `
.tv-top { border-bottom: 1px solid var(--tv-line); }
.tv-bar { display: flex; flex-wrap: wrap; align-items: end; justify-content: space-between; gap: 2px 12px; }
.tv-program { padding: 3px 10px; font-size: 12px; max-width: 100%; }
.tv-program, .tv-program > .tv-field { min-width: 0; }
.tv-program .tv-input { max-width: 100%; min-width: 0; flex: 0 1 auto; }
.tv-tabs { display: flex; flex-wrap: wrap; gap: 2px; padding: 4px 6px 0; }
.tinyviz button { font: inherit; color: inherit; cursor: pointer; }
.tv-tab { border: 1px solid transparent; border-bottom: 0; border-radius: 5px 5px 0 0; background: none; padding: 5px 10px 6px; position: relative; color: var(--tv-faint) !important; }
.tv-tab:hover { background: var(--tv-shade); }
.tv-tab[aria-selected="true"] { color: var(--tv-ink) !important; font-weight: 600; border-color: var(--tv-line); background: var(--tv-back); margin-bottom: -1px; box-shadow: inset 0 2px 0 var(--tv-accent); }
/* As high whatever is selected: what stands below must not move while one steps from thing to thing. */
.tv-crumbs { display: grid; grid-template: 24px 26px / minmax(0, 1fr); align-items: center; padding: 3px 10px; background: var(--tv-shade); border-top: 1px solid var(--tv-line); white-space: nowrap; }
.tv-selected { display: flex; align-items: center; gap: 8px; min-width: 0; }
.tv-selected > * { flex: none; }
.tv-selected > .tv-path { flex: 0 1 auto; overflow: hidden; text-overflow: ellipsis; }
.tv-selected > .tv-crumb { flex: 0 1 auto; overflow: hidden; text-overflow: ellipsis; }
.tv-crumb { font-family: var(--tv-code); font-size: 12px; }
.tv-counts { display: flex; gap: 4px; overflow: auto hidden; scrollbar-width: none; }
.tv-counts > * { flex: none; }
@container (max-width: 860px) { .tv-crumbs { grid-template-rows: 24px 50px; } .tv-counts { flex-wrap: wrap; overflow: hidden auto; align-self: stretch; align-content: safe center; } }
@container (min-width: 1500px) { .tv-crumbs { grid-template: 26px / auto auto; } .tv-counts { justify-content: end; } }
.tv-chip { border: 1px solid var(--tv-line); border-radius: 10px; padding: 0 8px; background: var(--tv-back); font-size: 11.5px; line-height: 18px; white-space: nowrap; }
.tv-status { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
.tinyviz { position: relative; border: 1px solid var(--tv-line); border-radius: 6px; overflow: hidden; }
.tinyviz-outline { border: 0; }
.tinyviz :focus-visible { outline: 2px solid var(--tv-accent); outline-offset: -2px; }
.tinyviz [hidden] { display: none !important; }
.tv-view { padding: 0 10px 10px; display: flex; flex-direction: column; gap: 8px; }
.tv-head { padding-top: 8px; }
.tv-headrow { display: flex; flex-wrap: wrap; align-items: center; gap: 4px 14px; }
.tv-title { font-weight: 600; font-size: 14px; }
.tv-link { border: 0; background: none; padding: 0; color: var(--tv-linkink) !important; text-decoration: underline; text-decoration-style: dotted; text-underline-offset: 2px; font-size: 12px !important; }
.tv-howto { margin: 6px 0 0; padding: 8px 10px 8px 26px; background: var(--tv-shade); border-left: 3px solid var(--tv-accent); border-radius: 0 4px 4px 0; max-width: 900px; }
.tv-howto li { margin: 2px 0; }
.tv-legend { display: flex; flex-wrap: wrap; gap: 3px 12px; margin-left: auto; font-size: 12px; color: var(--tv-faint); }
.tv-key { display: inline-flex; align-items: center; gap: 5px; }
.tv-mark { display: inline-flex; align-items: center; justify-content: center; width: 15px; height: 15px; flex: none; border-radius: 3px; background: var(--c, var(--tv-faint)); color: var(--tv-back); font: 700 10px/1 var(--tv-font); }
.tv-faint { color: var(--tv-faint); }
.tv-missing { color: var(--tv-faint); font-style: italic; margin: 0; padding: 10px; }
`;
