/** What only one view has. */

export const VIEWS = `
.tv-split { display: grid; grid-template-columns: minmax(220px, 290px) minmax(0, 1fr); gap: 12px; align-items: start; }
.tv-kernels { border: 1px solid var(--tv-line); border-radius: 5px; max-height: 640px; overflow: auto; }
.tv-kernelrow { display: grid; grid-template-columns: auto minmax(0, 1fr); gap: 1px 6px; padding: 5px 8px 6px; border-left: 3px solid transparent; border-bottom: 1px solid var(--tv-line); cursor: pointer; }
.tv-kernelrow:last-child { border-bottom: 0; }
.tv-kernelrow .tv-name { font: 600 12px var(--tv-code); overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.tv-kernelrow .tv-meter { grid-column: 1 / -1; }
.tv-flag { grid-column: 1 / -1; color: var(--tv-error); font-weight: 700; font-size: 11.5px; }
.tv-marks { display: inline-flex; gap: 2px; }
.tv-kernelrow:hover, .tv-kernelrow.tv-hover { background: var(--tv-shade); }
.tv-kernelrow.tv-lit { background: var(--tv-lit); }
.tv-kernelrow.tv-current { border-left-color: var(--tv-accent); background: var(--tv-raised); }
.tv-kernelrow.tv-current.tv-lit { background: var(--tv-lit); }
.tv-kernelbody { display: flex; flex-direction: column; gap: 8px; min-width: 0; }
.tv-figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(128px, 1fr)); gap: 6px 14px; margin: 0; }
.tv-figurename { color: var(--tv-faint); font-size: 11.5px; font-weight: 400; margin: 0; }
.tv-figurevalue { margin: 0; font-weight: 600; font-size: 15px; font-variant-numeric: tabular-nums; line-height: 1.25; }
.tv-figurevalue .tv-faint { display: block; font-weight: 400; font-size: 11px; }
.tv-schedulebox { display: flex; flex-wrap: wrap; align-items: baseline; gap: 4px 8px; font-size: 12px; }
.tinyviz ol.tv-schedule { display: flex; flex-wrap: wrap; gap: 4px; list-style: none; margin: 0; padding: 0; counter-reset: step; }
.tv-schedule li { counter-increment: step; border: 1px solid var(--tv-line); border-radius: 4px; padding: 0 6px; background: var(--tv-shade); }
.tv-schedule li::before { content: counter(step) " "; color: var(--tv-faint); font-size: 10px; }
.tinyviz code { font: 12px var(--tv-code); background: none; padding: 0; color: inherit; }
.tv-panes { display: grid; grid-template-columns: var(--panes); gap: 8px; }
.tv-panes .tv-pane { max-height: clamp(260px, 52vh, 560px); }
.tv-ownlines .tv-pane { max-height: 132px; }
.tv-ownlines .tv-code { min-height: 0; }
.tv-splitwide { grid-template-columns: minmax(280px, 380px) minmax(0, 1fr); }
.tv-edges { border: 1px solid var(--tv-line); border-radius: 5px; height: clamp(420px, 78vh, 860px); overflow: auto; position: relative; }
.tv-group { position: sticky; top: 0; background: var(--tv-raised); font: 600 12px var(--tv-code); padding: 3px 8px; border-bottom: 1px solid var(--tv-line); z-index: 1; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.tv-group[data-id] { cursor: pointer; }
.tv-edgerow { display: grid; grid-template-columns: auto minmax(0, 1fr) auto; gap: 1px 6px; padding: 4px 8px; border-left: 3px solid transparent; border-bottom: 1px solid var(--tv-line); cursor: pointer; align-items: center; }
.tv-edgerow .tv-name { font: 12px var(--tv-code); overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.tv-edgerow .tv-where { font-size: 11px; color: var(--tv-faint); }
.tv-edgerow .tv-why { grid-column: 2 / -1; font-size: 11.5px; color: var(--tv-faint); }
.tv-edgerow:hover, .tv-edgerow.tv-hover { background: var(--tv-shade); }
.tv-edgerow.tv-lit { background: var(--tv-lit); }
.tv-edgerow.tv-sel { border-left-color: var(--tv-accent); }
.tv-fusionpicture { --tv-height: clamp(320px, 54vh, 620px); }
.tv-card { border: 1px solid var(--tv-line); border-radius: 5px; padding: 8px 12px; display: grid; gap: 6px; background: var(--tv-shade); }
.tv-cardplace { min-height: 150px; }
.tv-cardhead { display: flex; flex-wrap: wrap; align-items: center; gap: 4px 10px; }
.tinyviz p.tv-reason { margin: 0; font-size: 14px; }
.tv-cardpart { display: grid; grid-template-columns: 92px minmax(0, 1fr); gap: 4px 12px; font-size: 12px; align-items: start; }
.tv-costs { display: grid; grid-template-columns: auto minmax(0, 360px); justify-content: start; gap: 2px 10px; align-items: center; }
.tv-number2 { display: inline-block; margin-right: 16px; }
.tinyviz ul.tv-refused { list-style: none; margin: 0; padding: 0; }
.tv-refused li { margin: 0 0 2px; }
.tv-refused .tv-mark { vertical-align: -3px; }
.tv-strip { display: flex; flex-wrap: wrap; align-items: stretch; gap: 4px; }
.tinyviz .tv-stage + .tv-stage { position: relative; margin-left: 9px; }
.tv-stage + .tv-stage::before { content: "›"; position: absolute; left: -11px; top: 50%; transform: translateY(-50%); color: var(--tv-faint); }
.tv-then { align-self: center; color: var(--tv-faint); }
.tinyviz button.tv-stage { flex: 1 1 104px; min-width: 0; display: grid; grid-template-rows: auto 1fr auto auto; gap: 1px; text-align: left; border: 1px solid var(--tv-line); border-radius: 5px; background: linear-gradient(to right, color-mix(in srgb, var(--tv-accent) 22%, transparent) var(--part), transparent 0) bottom / 100% 4px no-repeat var(--tv-back); padding: 5px 8px 8px; font-size: 12px; }
.tv-question { font-size: 11px; color: var(--tv-faint); line-height: 1.25; }
.tv-stagefacts { font-size: 11.5px; }
.tv-stagetime { font-size: 11.5px; color: var(--tv-faint); font-variant-numeric: tabular-nums; }
.tinyviz button.tv-stage[aria-selected="true"] { border-color: var(--tv-accent); box-shadow: 0 0 0 1px var(--tv-accent); }
.tinyviz button.tv-stage:hover { background-color: var(--tv-shade); }
.tinyviz button.tv-stage.tv-idle { flex-grow: 0; }
.tinyviz button.tv-idle b { color: var(--tv-faint); font-weight: 500; }
.tv-idle .tv-question { visibility: hidden; height: 0; }
.tv-stagebody { display: flex; flex-direction: column; gap: 8px; }
.tv-rules { border: 1px solid var(--tv-line); border-radius: 5px; max-height: 640px; overflow: auto; }
.tinyviz button.tv-rule { display: grid; grid-template-columns: 34px minmax(0, 1fr); gap: 1px 6px; width: 100%; text-align: left; border: 0; border-bottom: 1px solid var(--tv-line); border-left: 3px solid transparent; background: none; padding: 5px 8px; font-size: 12px; }
.tinyviz button.tv-rule:hover { background: var(--tv-shade); }
.tinyviz button.tv-rule.tv-current { border-left-color: var(--tv-accent); background: var(--tv-lit); }
.tv-rule .tv-count { text-align: right; color: var(--tv-faint); font-variant-numeric: tabular-nums; }
.tv-rule .tv-name { font-family: var(--tv-code); }
.tv-rule .tv-why { grid-column: 2; font-size: 11.5px; color: var(--tv-faint); }
.tv-slider { flex: 1 1 160px; accent-color: var(--tv-accent); min-width: 100px; }
.tv-stepnumber { font-variant-numeric: tabular-nums; min-width: 92px; }
.tv-step { display: grid; grid-template-columns: minmax(0, 1fr); gap: 4px; align-content: start; overflow: auto; }
.tv-step.tv-rewrite { height: 152px; }
.tv-step.tv-offuse, .tv-step.tv-ofschedule { height: 236px; }
.tv-step.tv-ofplan { height: 192px; }
.tv-step.tv-ofloops { height: 64px; }
.tv-step.tv-ofemit { height: 150px; }
.tv-rulecode > summary { font-family: var(--tv-code); cursor: pointer; }
.tv-rulecode[open] { flex-basis: 100%; }
.tinyviz pre.tv-rulesource { margin: 4px 0 0; padding: 4px 8px; font: 12px/1.5 var(--tv-code); white-space: pre-wrap; background: var(--tv-shade); border-radius: 4px; }
.tv-both .tv-side .tv-picture { --tv-height: clamp(220px, 38vh, 440px); }
.tv-both .tv-steptext { height: clamp(180px, 28vh, 320px); }
.tv-arena { display: block; width: 100%; height: auto; max-height: 250px; }
.tv-arena text { font-family: var(--tv-font); font-size: 11px; fill: var(--tv-ink); pointer-events: none; }
.tv-arena .tv-axis { fill: var(--tv-faint); }
.tv-arenaground { fill: var(--tv-shade); stroke: var(--tv-line); }
.tv-arenacall { fill: color-mix(in srgb, var(--tv-c-new) 45%, transparent); }
.tv-arenabox { cursor: pointer; }
.tv-arenabox rect { fill: color-mix(in srgb, var(--tv-c-whole) 26%, var(--tv-back)); stroke: var(--tv-c-whole); stroke-width: 1; }
.tv-arenabox[data-change="new"] rect { fill: color-mix(in srgb, var(--tv-c-new) 45%, var(--tv-back)); stroke: var(--tv-c-new); stroke-width: 2.5; }
.tv-arenabox:hover rect { stroke: var(--tv-ink); stroke-width: 2; }
.tv-arenabox.tv-lit rect { stroke: var(--tv-accent); stroke-width: 3; }
.tv-rulename { font-family: var(--tv-code); }
.tv-diff { font: 12.5px/1.6 var(--tv-code); padding: 4px 8px; background: var(--tv-shade); border-radius: 4px; overflow-wrap: anywhere; }
.tv-diff del, .tv-diff ins { border-radius: 2px; padding: 0 1px; margin: 0 1px; }
.tv-diff del { text-decoration: line-through; background: color-mix(in srgb, var(--tv-c-removed) 22%, transparent); }
.tv-diff ins { text-decoration: underline; background: color-mix(in srgb, var(--tv-c-new) 34%, transparent); }
.tv-steptext { font: 12px/1.5 var(--tv-code); overflow: auto; height: clamp(240px, 44vh, 520px); padding: 4px 0; }
.tv-stepline { white-space: pre; min-height: 1.5em; width: max-content; min-width: 100%; padding: 0 8px 0 4px; border-left: 3px solid transparent; }
.tv-stepline::before { content: ""; display: inline-block; width: 1.4em; text-align: center; color: var(--tv-faint); }
.tv-stepline[data-change="new"] { background: color-mix(in srgb, var(--tv-c-new) 22%, transparent); border-left-color: var(--tv-c-new); }
.tv-stepline[data-change="new"]::before { content: "+"; }
.tv-stepline[data-change="removed"] { background: color-mix(in srgb, var(--tv-c-removed) 18%, transparent); border-left-color: var(--tv-c-removed); }
.tv-stepline[data-change="removed"]::before { content: "−"; }
.tv-stepline[data-change="changed"] { background: var(--tv-shade); border-left-color: var(--tv-faint); }
.tv-stepline[data-change="changed"]::before { content: "~"; }
.tv-stepline[data-change="fold"] { color: var(--tv-faint); }
.tv-stepline[data-node] { cursor: pointer; }
.tv-stepline.tv-lit { background: var(--tv-lit); }
.tv-stepline del, .tv-stepline ins { border-radius: 2px; }
.tv-stepline del { text-decoration: line-through; background: color-mix(in srgb, var(--tv-c-removed) 26%, transparent); }
.tv-stepline ins { text-decoration: underline; background: color-mix(in srgb, var(--tv-c-new) 40%, transparent); }
.tv-history { font-size: 12px; overflow-wrap: anywhere; }
.tv-pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(300px, 100%), 1fr)); gap: 8px; }
.tv-side { border: 1px solid var(--tv-line); border-radius: 5px; overflow: hidden; }
.tv-side .tv-picture { border: 0; border-radius: 0; --tv-height: clamp(260px, 46vh, 520px); }
.tv-lanes { position: relative; border: 1px solid var(--tv-line); border-radius: 5px; overflow: hidden auto; max-height: 460px; cursor: grab; touch-action: none; }
.tv-track { display: block; width: 100%; user-select: none; }
.tv-track text { font-family: var(--tv-font); font-size: 11px; fill: var(--tv-ink); pointer-events: none; font-variant-numeric: tabular-nums; }
.tv-track .tv-lanename { font-size: 12px; font-weight: 600; }
.tv-track .tv-ticktext { fill: var(--tv-faint); text-anchor: middle; }
.tv-tick { stroke: var(--tv-line); stroke-dasharray: 2 3; }
.tv-lanebody { fill: var(--tv-shade); }
.tv-gap { fill: none; stroke: var(--tv-faint); stroke-width: .8; stroke-dasharray: 2 2; opacity: .7; }
.tv-track .tv-gaptext { fill: var(--tv-faint); text-anchor: middle; font-size: 10px; }
.tv-launch { cursor: pointer; }
.tv-launch rect, .tv-launch path { fill: var(--c); stroke: var(--tv-back); stroke-width: .5; }
.tv-track .tv-launch text { fill: var(--tv-back); font-weight: 600; }
.tv-track .tv-launch text.tv-beside { fill: var(--tv-ink); font-weight: 400; }
.tv-track.tv-some .tv-launch:not(.tv-lit) { opacity: .4; }
.tv-launch.tv-hover rect, .tv-launch.tv-lit rect { stroke: var(--tv-ink); stroke-width: 2; }
.tv-ledger .tv-title { margin-bottom: 4px; }
.tinyviz .tv-ledger td:first-child { min-width: 150px; }
.tv-range { font-size: 11px; color: var(--tv-faint); }
.tv-ranges { position: relative; height: 22px; min-width: 130px; }
.tv-rangebar, .tv-rangedot { position: absolute; }
.tv-rangebar.tv-p { top: 3px; height: 6px; border: 1px solid var(--tv-faint); border-radius: 3px; }
.tv-rangebar.tv-m { top: 13px; height: 6px; background: var(--tv-accent); border-radius: 3px; min-width: 3px; }
.tv-rangedot { width: 2px; margin-left: -1px; background: var(--tv-ink); }
.tv-rangedot.tv-p { top: 1px; height: 10px; }
.tv-rangedot.tv-m { top: 11px; height: 10px; }
.tv-key2 { font-weight: 400; color: var(--tv-faint); display: inline-flex; align-items: center; gap: 5px; }
.tv-rangekey { width: 16px; height: 6px; border-radius: 3px; }
.tv-rangekey.tv-p { border: 1px solid var(--tv-faint); }
.tv-rangekey.tv-m { background: var(--tv-accent); }
.tinyviz .tv-ledger tr[data-agrees="false"] td:first-child { box-shadow: inset 3px 0 0 var(--tv-error); }
.tv-differs { color: var(--tv-error); white-space: nowrap; }
.tv-ledger .tv-scroll, .tv-tall { max-height: 560px; }
.tinyviz .tv-table td.tv-linecell { width: 60%; max-width: 0; }
.tv-linecell > div { display: flex; flex-wrap: wrap; gap: 0 12px; font: 12px var(--tv-code); }
.tv-linecell span { white-space: nowrap; }
.tv-linecell code { flex: 1 1 180px; min-width: 0; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.tv-sel > .tv-linecell code { white-space: pre-wrap; }
.tv-lineof { display: flex; flex-wrap: wrap; gap: 0 12px; }
.tv-lineof code { flex: 1 1 240px; }
.tinyviz .tv-table td.tv-few { white-space: nowrap; }
.tv-phases { display: none; flex-wrap: wrap; gap: 0 8px; font-size: 11px; color: var(--tv-faint); }
.tv-stack { display: flex; height: 14px; min-width: 120px; }
.tv-stack > span { background: var(--c); color: var(--tv-back); font: 700 10px/14px var(--tv-font); text-align: center; overflow: hidden; min-width: 1px; }
.tv-columns { display: grid; grid-template-columns: minmax(0, 1.4fr) minmax(0, 1fr) minmax(0, .95fr) minmax(0, .95fr); gap: 8px; }
.tv-column { display: flex; flex-direction: column; min-width: 0; border: 1px solid var(--tv-line); border-radius: 5px; overflow: hidden; }
.tv-columnbody { flex: none; min-height: 0; height: clamp(400px, 66vh, 720px); overflow: auto; display: flex; flex-direction: column; }
.tv-columnbody .tv-picture { border: 0; border-radius: 0; height: 100%; }
.tv-columnbody .tv-lanes { border: 0; max-height: none; flex: 1; }
.tv-strip2 { border-bottom: 1px solid var(--tv-line); padding-bottom: 8px !important; grid-template-columns: repeat(auto-fit, minmax(104px, 1fr)) !important; }
.tv-lineRow { display: grid; grid-template-columns: 30px minmax(0, 1fr) auto; gap: 0 6px; padding: 3px 8px 5px 2px; border-left: 3px solid transparent; border-bottom: 1px solid var(--tv-line); cursor: pointer; font-size: 12px; align-items: baseline; }
.tv-lineRow.tv-context { cursor: default; color: var(--tv-faint); border-bottom: 0; }
.tv-between::before { content: "⋯"; }
.tv-between { padding: 0 8px 0 26px; color: var(--tv-faint); line-height: 1; border-bottom: 1px solid var(--tv-line); padding-bottom: 4px; }
.tv-timecell { display: grid; grid-template-columns: minmax(100px, 1fr) 62px; gap: 8px; align-items: center; }
.tv-timecell > :last-child { text-align: right; }
.tv-lineRow .tv-number { background: none; text-align: right; padding: 0; margin: 0; font-variant-numeric: tabular-nums; }
.tv-lineRow .tv-text { font: 12px var(--tv-code); overflow: hidden; text-overflow: ellipsis; white-space: pre; }
.tv-lineRow .tv-stack { grid-column: 2 / -1; height: 7px; margin-top: 2px; }
.tv-lineRow .tv-stack > span { font-size: 0; }
.tv-lineRow:hover, .tv-lineRow.tv-hover { background: var(--tv-shade); }
.tv-lineRow.tv-lit { background: var(--tv-lit); }
.tv-lineRow.tv-sel, .tv-kernelrow.tv-sel { border-left-color: var(--tv-accent); }
.tv-memoryframe { max-height: 560px; cursor: default; touch-action: auto; }
.tv-track .tv-ticktext.tv-left { text-anchor: start; }
.tv-track .tv-ticktext.tv-end, .tv-track .tv-end { text-anchor: end; }
.tv-track .tv-middle { text-anchor: middle; }
.tv-alive { fill: color-mix(in srgb, var(--tv-ink) 14%, transparent); stroke: var(--tv-faint); }
.tv-callcolumn { fill: transparent; cursor: pointer; }
.tv-callcolumn.tv-hover { fill: color-mix(in srgb, var(--tv-ink) 10%, transparent); }
.tv-callcolumn.tv-lit { fill: color-mix(in srgb, var(--tv-accent) 30%, transparent); }
.tv-peak { stroke: var(--tv-ink); stroke-dasharray: 5 3; pointer-events: none; }
.tv-memorymap .tv-givenbox rect { fill: color-mix(in srgb, var(--c) 22%, var(--tv-back)); stroke: var(--c); stroke-width: 1; }
.tv-memorymap .tv-launch.tv-hover rect, .tv-memorymap .tv-launch.tv-lit rect { stroke: var(--tv-ink); stroke-width: 2; }
.tv-memorymap .tv-launch.tv-sel rect { stroke: var(--tv-accent); stroke-width: 3; }
.tv-short { min-height: 40px; }
.tv-roofframe { border: 1px solid var(--tv-line); border-radius: 5px; overflow: hidden; }
.tv-roof { fill: none; stroke: var(--tv-ink); stroke-width: 1.4; }
.tv-track .tv-rooftext { fill: var(--tv-faint); paint-order: stroke; stroke: var(--tv-shade); stroke-width: 5px; stroke-linejoin: round; }
.tv-stem { stroke: var(--c); stroke-width: 1.4; }
.tv-hollow { fill: var(--tv-back); stroke: var(--c); stroke-width: 2; }
.tv-full { fill: var(--c); stroke: var(--tv-back); }
.tv-track .tv-point text { text-anchor: middle; }
.tv-point.tv-hover .tv-full, .tv-point.tv-lit .tv-full, .tv-point.tv-hover .tv-hollow, .tv-point.tv-lit .tv-hollow { stroke: var(--tv-ink); stroke-width: 2.5; }
.tv-rank { margin-left: 3px; font-size: 11px; min-width: 1.4em; text-align: right; font-variant-numeric: tabular-nums; }
.tv-where2 { grid-column: 1 / -1; font-size: 11px; color: var(--tv-faint); }
.tv-findings { display: flex; flex-direction: column; gap: 6px; margin-top: 4px; }
.tv-finding { border: 1px solid var(--tv-line); border-left: 3px solid var(--tv-line); border-radius: 4px; padding: 5px 10px; cursor: pointer; font-size: 12px; }
.tv-finding:hover { background: var(--tv-shade); }
.tv-finding.tv-lit { background: var(--tv-lit); border-left-color: var(--tv-accent); }
.tinyviz .tv-finding p.tv-reason { font-size: 13px; }
.tv-gain { margin-left: auto; font-variant-numeric: tabular-nums; }
.tv-compared { display: grid; grid-template-columns: minmax(0, 1fr) auto minmax(0, 1fr); gap: 4px 12px; }
.tv-comparedside { border: 1px solid var(--tv-line); border-radius: 5px; padding: 5px 10px; min-width: 0; overflow-wrap: anywhere; }
.tinyviz .tv-settings { margin: 0; padding: 6px 10px; border-left: 3px solid var(--tv-error); background: var(--tv-shade); }
.tinyviz .tv-settings ul { margin: 2px 0 4px; padding-left: 18px; }
.tinyviz .tv-pairs td { white-space: nowrap; }
.tinyviz .tv-pairs td:first-child { max-width: 36cqw; overflow: hidden; text-overflow: ellipsis; }
.tinyviz .tv-pairs td:last-child:not(.tv-right) { white-space: pre-wrap; min-width: 160px; }
.tinyviz .tv-alarm { border: 1px solid var(--tv-error); border-left-width: 4px; border-radius: 4px; padding: 6px 10px; }
.tv-series { max-height: 78vh; overflow: auto; }
.tv-seriesrow { display: grid; grid-template-columns: minmax(0, 1fr) 84px 14px; gap: 0 6px; padding: 3px 8px; border-left: 3px solid transparent; border-bottom: 1px solid var(--tv-line); cursor: pointer; align-items: center; }
.tv-seriesrow .tv-name { font: 12px var(--tv-code); overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.tv-seriesrow .tv-where2 { grid-column: 1; grid-row: 2; }
.tv-seriesrow .tv-curve { grid-column: 2; grid-row: 1 / 3; }
.tv-seriesrow .tv-remark { grid-column: 3; grid-row: 1 / 3; color: var(--tv-error); font-weight: 700; }
.tv-seriesrow:hover { background: var(--tv-shade); }
.tv-seriesrow.tv-lit { background: var(--tv-lit); }
.tv-seriesrow.tv-sel { border-left-color: var(--tv-accent); }
.tv-seriesbody { align-content: start; }
.tv-curve { background: var(--tv-shade); border-radius: 3px; max-width: 100%; }
.tv-curve path { fill: none; vector-effect: non-scaling-stroke; stroke: var(--tv-ink); stroke-width: 1.4; }
.tv-curve .tv-guide { stroke: var(--tv-accent); stroke-dasharray: 4 3; }
.tv-valuegrid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 380px), 1fr)); gap: 6px 22px; }
.tv-valuepanel { display: grid; gap: 2px; margin: 4px 0; font-size: 12px; align-content: start; }
.tv-axes { display: grid; grid-template-columns: auto minmax(0, 1fr); gap: 1px 6px; font-size: 11px; font-variant-numeric: tabular-nums; }
.tv-axes .tv-curve, .tv-axes .tv-heat { width: 100%; height: 128px; }
.tv-upwards { display: flex; flex-direction: column; justify-content: space-between; text-align: right; min-width: 46px; }
.tv-rightwards { display: flex; justify-content: space-between; color: var(--tv-faint); }
.tinyviz figure.tv-tilebox { margin: 0; display: grid; gap: 1px; }
.tv-tilebox figcaption { font: 11px var(--tv-code); text-align: center; }
.tv-heat { width: min(520px, 100%); height: 128px; image-rendering: pixelated; color: var(--tv-ink); background: var(--tv-hatch) var(--tv-shade); border-radius: 3px; }
.tv-tiles { display: flex; flex-wrap: wrap; gap: 6px; }
.tv-tile { image-rendering: pixelated; border: 1px solid var(--tv-line); background: var(--tv-hatch); }
.tv-tile, .tv-heat { --tv-hatch: repeating-linear-gradient(135deg, var(--tv-back) 0 3px, var(--tv-error) 3px 4px); }
.tv-bufferpicture { cursor: pointer; }
.tv-traced.tv-second { fill: var(--tv-c-backward, #b0508a) !important; }
.tv-traced { fill: var(--tv-ink); stroke: var(--tv-back); stroke-width: .6; }
.tv-addressesbody td:nth-child(2) { white-space: nowrap; }
.tinyviz p.tv-verdict { margin: 2px 0; font-size: 13px; }
.tv-part { margin-top: 10px; }
.tinyviz .tv-unsure td { color: var(--tv-faint); }
.tv-changes { height: clamp(260px, 54vh, 620px); }
.tv-changes .tv-change { font: 12px var(--tv-code); overflow-wrap: anywhere; }
.tv-change del { text-decoration: line-through; color: var(--tv-faint); }
.tv-change ins { text-decoration: underline; }
@container (max-width: 1100px) { .tv-columns { grid-template-columns: repeat(2, minmax(0, 1fr)); } .tv-columnbody { height: 320px; } }
@container (max-width: 1280px) { .tv-panes { grid-template-columns: repeat(2, minmax(0, 1fr)); } .tv-panes .tv-pane { max-height: 300px; } .tv-panes .tv-pane:first-child:nth-last-child(odd) { grid-column: 1 / -1; } }
@container (max-width: 860px) { .tinyviz .tv-linestable .tv-phase { display: none; } .tv-linestable .tv-timecell { grid-template-columns: minmax(76px, 1fr) 58px; } .tv-linestable .tv-stack { min-width: 76px; } .tv-phases { display: flex; } .tinyviz .tv-linestable td, .tinyviz .tv-linestable th { padding: 3px 6px; } .tv-split { grid-template-columns: minmax(0, 1fr); } .tv-kernels, .tv-rules { max-height: 190px; } .tv-then, .tinyviz .tv-rangecell { display: none; } .tinyviz .tv-stage + .tv-stage { margin-left: 0; } .tv-stage + .tv-stage::before { display: none; } .tv-compared { grid-template-columns: minmax(0, 1fr); } .tv-edges { height: 240px; } .tv-legend { margin-left: 0; } .tinyviz .tv-aside.tv-narrow { display: none; } .tv-below { display: block; } .tinyviz .tv-pairs td, .tinyviz .tv-pairs th { padding: 3px 6px; } }
@container (max-width: 480px) { .tv-table .tv-meterbar { display: none; } .tv-table .tv-meter { min-width: 0; grid-template-columns: auto; } .tinyviz .tv-table th { white-space: normal; } .tinyviz .tv-table td, .tinyviz .tv-table th { padding: 3px 5px; } .tinyviz .tv-aside { display: none; } .tv-below > .tv-phone { display: inline; } .tv-step.tv-rewrite { height: 248px; } .tinyviz .tv-ledger td:first-child { min-width: 84px; } .tinyviz .tv-ledger td:last-child { overflow-wrap: normal; } .tv-range, .tinyviz .tv-ledger .tv-differs { white-space: normal; } .tinyviz .tv-pairs td:first-child { width: 100%; max-width: none; min-width: 90px; white-space: normal; } .tinyviz .tv-pairs th { white-space: nowrap; } }
`;
