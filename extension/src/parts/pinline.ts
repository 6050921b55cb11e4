/** The line of Python that keeps a choice, with a button that copies it. */

import { button, h } from "../dom";
import type { Context } from "../views/view";

export function pinLine(context: Context, line: string): HTMLElement {
  const code = h("code.tv-pin", { tabindex: 0 }, line);
  const copy = button("copy", () => {
    const done = () => context.say("copied: the line that pins this choice");
    const select = () => getSelection()?.selectAllChildren(code);
    copy.textContent = "copied";
    setTimeout(() => (copy.textContent = "copy"), 1500);
    if (navigator.clipboard) navigator.clipboard.writeText(line).then(done, select);
    else select();
  }, { "aria-label": "copy the line that pins this choice", title: "copy" });
  return h("div.tv-pinline", {}, h("span.tv-faint", {}, "to keep it"), code, copy);
}
