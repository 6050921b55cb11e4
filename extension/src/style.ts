/** The look, from the host's own theme: JupyterLab's variables, else VS Code's, else the system's light or dark. */

import { DRAWING } from "./styles/drawing";
import { EDITS } from "./styles/edits";
import { PARTS } from "./styles/parts";
import { SHELL } from "./styles/shell";
import { VIEWS } from "./styles/views";

const STYLE = `
.tinyviz, .tinyviz-error, .tinyviz-text {
  --tv-back: var(--jp-layout-color1, var(--vscode-editor-background, Canvas));
  --tv-raised: var(--jp-layout-color2, var(--vscode-editorWidget-background, color-mix(in srgb, CanvasText 7%, Canvas)));
  --tv-line: var(--jp-border-color2, var(--vscode-editorWidget-border, color-mix(in srgb, CanvasText 20%, Canvas)));
  --tv-ink: var(--jp-content-font-color1, var(--vscode-editor-foreground, CanvasText));
  --tv-faint: var(--jp-content-font-color2, var(--vscode-descriptionForeground, color-mix(in srgb, CanvasText 65%, Canvas)));
  --tv-accent: var(--jp-brand-color1, var(--vscode-focusBorder, #1976d2));
  --tv-error: var(--jp-error-color1, var(--vscode-errorForeground, #d32f2f));
  --tv-font: var(--jp-ui-font-family, var(--vscode-font-family, system-ui, sans-serif));
  --tv-code: var(--jp-code-font-family, var(--vscode-editor-font-family, ui-monospace, monospace));
  color: var(--tv-ink);
  font-family: var(--tv-font);
  font-size: var(--jp-ui-font-size1, 13px);
  line-height: 1.4;
  text-align: left;
}
.tinyviz { background: var(--tv-back); container-type: inline-size; --tv-shade: color-mix(in srgb, var(--tv-ink) 5%, var(--tv-back)); --tv-lit: color-mix(in srgb, var(--tv-accent) 16%, var(--tv-back)); --tv-linkink: color-mix(in srgb, var(--tv-accent) 75%, var(--tv-ink)); }
.tinyviz[data-ground="dark"] { --tv-accent: var(--jp-brand-color1, var(--vscode-focusBorder, #64aaf2)); --tv-error: var(--jp-error-color1, var(--vscode-errorForeground, #ff6f69)); }
.tinyviz *, .tinyviz *::before { box-sizing: border-box; }
.tinyviz-title { font-weight: 600; padding: 4px 8px; }
.tinyviz ul.tinyviz-list { list-style: none; margin: 0; padding: 0; max-height: 24em; overflow: auto; border: 1px solid var(--tv-line); border-radius: 3px; }
.tinyviz-list:focus-visible { outline: 2px solid var(--tv-accent); outline-offset: 1px; }
.tinyviz li.tinyviz-item { display: flex; gap: 12px; justify-content: space-between; margin: 0; padding: 2px 8px; border-left: 3px solid transparent; cursor: pointer; }
.tinyviz-item:hover { background: var(--tv-raised); }
.tinyviz li.tinyviz-item[aria-selected="true"] { background: var(--tv-raised); border-left-color: var(--tv-accent); font-weight: 600; }
.tinyviz-label { font-family: var(--tv-code); overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.tinyviz-detail { color: var(--tv-faint); font-variant-numeric: tabular-nums; white-space: nowrap; }
.tinyviz-error { color: var(--tv-error); padding: 4px 8px; border-left: 3px solid var(--tv-error); }
.tinyviz-text { font-family: var(--tv-code); white-space: pre; overflow: auto; margin: 4px 8px; }
`;

/** Adds the rules once to the document, or to the shadow root that some hosts draw widgets in. */
export function ensureStyle(el: HTMLElement): void {
  const root = el.getRootNode();
  const home = root instanceof ShadowRoot ? root : document.head;
  if (home.querySelector("style[data-tinyviz]")) return;
  const style = document.createElement("style");
  style.dataset.tinyviz = "";
  style.textContent = [STYLE, SHELL, PARTS, DRAWING, VIEWS, EDITS].join("");
  home.append(style);
}
