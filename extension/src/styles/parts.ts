/** What several views share: tools, tables, code panes, meters. */

export const PARTS = `
.tv-tools { display: flex; flex-wrap: wrap; align-items: center; gap: 4px 12px; font-size: 12px; }
.tv-field { display: inline-flex; align-items: center; gap: 5px; color: var(--tv-faint); white-space: nowrap; }
.tv-field input[type="checkbox"] { margin: 0; accent-color: var(--tv-accent); }
.tv-input { font: inherit; font-size: 12px; color: var(--tv-ink); background: var(--tv-back); border: 1px solid var(--tv-line); border-radius: 4px; padding: 2px 6px; height: 24px; }
.tv-input[aria-invalid] { border-color: var(--tv-error); }
.tv-search { display: inline-flex; align-items: center; gap: 4px; }
.tv-search .tv-input { width: 19em; max-width: 60vw; }
.tv-button { border: 1px solid var(--tv-line); border-radius: 4px; background: var(--tv-back); padding: 1px 8px; font-size: 12px !important; min-height: 22px; }
.tv-button:hover { background: var(--tv-raised); }
.tv-button:disabled { opacity: .45; cursor: default; }
.tv-button[aria-pressed="true"] { background: var(--tv-lit); border-color: var(--tv-accent); font-weight: 600; }
.tv-facts { display: flex; flex-wrap: wrap; gap: 2px 16px; min-height: 20px; font-size: 12px; }
.tv-twin { font-size: 12px; }
.tv-twin > summary { cursor: pointer; color: var(--tv-faint); padding: 2px 0; }
.tv-scroll { max-height: 340px; overflow: auto; border: 1px solid var(--tv-line); border-radius: 4px; }
.tinyviz table.tv-table { border-collapse: collapse; width: 100%; margin: 0; border: 0; font-size: 12px; font-variant-numeric: tabular-nums; table-layout: auto; }
.tinyviz .tv-table th, .tinyviz .tv-table td { text-align: left; padding: 3px 10px; border: 0; border-bottom: 1px solid var(--tv-line); vertical-align: top; max-width: 420px; white-space: normal; overflow-wrap: anywhere; }
.tinyviz .tv-table th { position: sticky; top: 0; z-index: 1; background: var(--tv-raised); font-weight: 600; white-space: nowrap; }
.tinyviz .tv-table thead td { background: var(--tv-raised); }
.tinyviz .tv-table .tv-right { text-align: right; white-space: nowrap; }
.tinyviz .tv-table tbody tr, .tinyviz .tv-table tbody tr:nth-child(odd) { background: none; }
.tv-below { display: none; color: var(--tv-faint); font-weight: 400; white-space: normal; }
.tv-below > .tv-phone { display: none; }
.tv-below > span + span::before { content: " · "; }
.tv-table tbody tr[tabindex] { cursor: pointer; }
.tinyviz .tv-table tbody tr:nth-child(n):hover { background: var(--tv-shade); }
.tinyviz .tv-table tbody tr.tv-lit:nth-child(n) { background: var(--tv-lit); }
.tinyviz .tv-table tbody tr.tv-sel { box-shadow: inset 3px 0 0 var(--tv-accent); font-weight: 600; }
.tv-meter { display: grid; grid-template-columns: 1fr auto; align-items: center; gap: 8px; min-width: 90px; font-variant-numeric: tabular-nums; }
.tv-meterbar { height: 8px; border-radius: 2px; background: linear-gradient(to right, var(--c, var(--tv-faint)) var(--part), var(--tv-raised) 0); }
.tv-metertext { font-size: 12px; white-space: nowrap; min-width: 56px; text-align: right; }
.tv-pane { display: flex; flex-direction: column; min-width: 0; border: 1px solid var(--tv-line); border-radius: 5px; overflow: hidden; background: var(--tv-back); }
.tv-panehead { display: flex; justify-content: space-between; gap: 8px; padding: 3px 8px; background: var(--tv-raised); border-bottom: 1px solid var(--tv-line); font-weight: 600; font-size: 12px; white-space: nowrap; }
.tv-panehead .tv-faint { font-weight: 400; overflow: hidden; text-overflow: ellipsis; }
.tv-code { overflow: auto; flex: 1; font: 12px/1.5 var(--tv-code); tab-size: 4; padding: 3px 0; min-height: 60px; position: relative; }
.tv-codeline { display: block; width: max-content; min-width: 100%; padding: 0 10px 0 0; white-space: pre; border-left: 3px solid transparent; cursor: default; }
.tv-codeline[data-id] { cursor: pointer; }
.tv-codeline:hover { background: var(--tv-shade); }
.tv-number { display: inline-block; position: sticky; left: 0; padding: 0 8px 0 5px; margin-right: 6px; color: var(--tv-faint); background: linear-gradient(to right, color-mix(in srgb, var(--tv-accent) 28%, var(--tv-back)) var(--share, 0%), var(--tv-back) 0); user-select: none; }
.tv-codeline.tv-hover { background: var(--tv-shade); border-left-color: var(--tv-faint); }
.tv-codeline.tv-lit { background: var(--tv-lit); border-left-color: var(--tv-accent); }
.tv-codeline.tv-lit .tv-number { background-color: var(--tv-lit); }
.tv-codeline.tv-sel { font-weight: 700; }
.tv-codeline.tv-cursor { outline: 1px dotted var(--tv-accent); outline-offset: -1px; }
.tv-comment, .tv-string { color: var(--tv-faint); font-style: italic; }
.tv-word { font-weight: 600; }
`;
